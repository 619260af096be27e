"""Object discovery: LOST and TokenCut find one object in each image by the keys of a ViT's last block."""

from eval.registry import Benchmark, DataSet, Download, Task, columns_of
from eval.shared import COCO_SITE, VOC2012_SET

_COCO20K = DataSet(
    "coco20k",
    "COCO 20k",
    (
        Download(f"{COCO_SITE}/zips/train2014.zip", "coco20k", "coco20k/train2014"),
        Download(f"{COCO_SITE}/annotations/annotations_trainval2014.zip", "coco20k", "coco20k/annotations"),
        Download(
            "https://raw.githubusercontent.com/valeoai/LOST/master/datasets/coco_20k_filenames.txt",
            "coco20k",
            "coco20k/coco_20k_filenames.txt",
        ),
    ),
    ("coco_20k_filenames.txt", "annotations/instances_train2014.json"),
)

TASK = Task(
    name="object_discovery",
    summary="Find one object in each image by the keys of a ViT's last block, with LOST or TokenCut, and measure CorLoc.",
    folder="VOCdevkit/VOC2007",
    dataset="PASCAL VOC 2007",
    downloads=(
        Download(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
            ".",
            "VOCdevkit/VOC2007/JPEGImages",
        ),
    ),
    signs=("JPEGImages/000005.jpg", "JPEGImages/000007.jpg"),
    benchmarks=tuple(
        Benchmark(
            key=key,
            title=f"Object discovery, {title}",
            task="object_discovery",
            protocol=f"object-discovery-{key}",
            items="images",
            columns=columns_of(key, (("corloc", "CorLoc", "CorLoc"),)),
            any_dataset=True,
        )
        for key, title in (("lost", "LOST"), ("tokencut", "TokenCut"))
    ),
    sample_options=("--workers", "0"),
    in_main_table=False,
    further_sets=(VOC2012_SET, _COCO20K),
    shared={"items": "eval.probes.means"},
)
