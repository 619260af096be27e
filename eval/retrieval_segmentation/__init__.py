"""Segmentation by dense retrieval: patches take the labels of the most similar patches of a memory."""

from eval.registry import Benchmark, Chart, Task, columns_of
from eval.shared import ADE20K_SET, CITYSCAPES_SET, COCO_STUFF_SET, IOU, VOC2012_SET

TASK = Task(
    name="retrieval_segmentation",
    summary="Segment images by the labels of the most similar patches of training images, with a backbone's frozen features.",
    folder=VOC2012_SET.folder,
    dataset=VOC2012_SET.dataset,
    downloads=VOC2012_SET.downloads,
    signs=VOC2012_SET.signs,
    benchmarks=tuple(
        Benchmark(
            key=key,
            title=title,
            task="retrieval_segmentation",
            protocol=protocol,
            items="images",
            columns=columns_of(key, IOU[:2]),
            any_dataset=True,
            charts=(Chart("IoU", "mIoU", "IoU per class"),),
        )
        for key, title, protocol in (
            ("hummingbird_102k", "Retrieval, memory 102k", "hummingbird-102k"),
            ("hummingbird_1m", "Retrieval, memory 1.02M", "hummingbird-1.02m"),
            ("hummingbird_10m", "Retrieval, memory 10.24M", "hummingbird-10.24m"),
            ("hummingbird_fixed_102k", "Retrieval without quirks, memory 102k", "hummingbird-fixed-102k"),
            ("hummingbird_fixed_1m", "Retrieval without quirks, memory 1.02M", "hummingbird-fixed-1.02m"),
            ("hummingbird_fixed_10m", "Retrieval without quirks, memory 10.24M", "hummingbird-fixed-10.24m"),
            ("capi_knn", "Patch k-NN", "capi-knn"),
        )
    ),
    # The smallest memory with published values has more patches than the sample.
    sample_options=("--input-size", "128", "--memory-size", "1000", "--workers", "0"),
    in_main_table=False,
    further_sets=(ADE20K_SET, CITYSCAPES_SET, COCO_STUFF_SET),
    shared={"items": "eval.probes.items"},
)
