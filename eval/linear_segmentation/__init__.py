"""Linear segmentation: a layer on a frozen backbone's patches, under three published protocols."""

from eval.registry import Benchmark, Chart, Task, columns_of
from eval.shared import ADE20K_SET, CITYSCAPES_SET, COCO_STUFF_SET, IOU, VOC2012_SET

TASK = Task(
    name="linear_segmentation",
    summary="Train a linear layer on a frozen backbone's patches to segment ADE20K or another labelled set, and measure mIoU.",
    folder=ADE20K_SET.folder,
    dataset=ADE20K_SET.dataset,
    downloads=ADE20K_SET.downloads,
    signs=ADE20K_SET.signs,
    benchmarks=tuple(
        Benchmark(
            key=f"linseg_{protocol}",
            title=f"Linear segmentation, {title}",
            task="linear_segmentation",
            protocol=f"linear-segmentation-{protocol}",
            items="images",
            columns=columns_of(f"linseg_{protocol}", IOU),
            any_dataset=True,
            charts=(Chart("IoU", "mIoU", "IoU per class"),),
        )
        for protocol, title in (
            ("dinov3", "DINOv3's protocol"),
            ("dinov2", "DINOv2's protocol"),
            ("neco", "NeCo's protocol"),
        )
    ),
    sample_options=(
        *("--iterations", "40", "--evaluate-every", "20", "--batch-size", "4", "--size", "128", "--workers", "0"),
        *("--learning-rates", "0.01"),
    ),
    in_main_table=False,
    further_sets=(VOC2012_SET, CITYSCAPES_SET, COCO_STUFF_SET),
    shared={"data": "eval.probes.sets", "items": "eval.probes.items"},
)
