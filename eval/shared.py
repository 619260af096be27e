"""What several tasks share and loads no torch: data sets, columns of metrics, names of protocols, the check of options."""

from collections.abc import Mapping

from eval.registry import DataSet, Download

# Columns: end of the key, heading, metric.
IOU = (("miou", "mIoU", "mIoU"), ("aacc", "aAcc", "aAcc"), ("macc", "mAcc", "mAcc"))
# Protocols of videos: end of the benchmark's key, title.
VIDEOWALK = (("cropmae", "CropMAE's protocol"), ("crw", "videowalk's protocol"))
COCO_SITE = "http://images.cocodataset.org"
COCO_SPLITS = ("train2017", "val2017")
ADE20K_SET = DataSet(
    "ade/ADEChallengeData2016",
    "ADE20K",
    (
        Download(
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip", "ade", "ade/ADEChallengeData2016/images"
        ),
    ),
    ("images/training", "images/validation", "annotations/training", "annotations/validation"),
)
VOC2012_SET = DataSet(
    "VOCdevkit/VOC2012",
    "PASCAL VOC 2012",
    (
        Download(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", ".", "VOCdevkit/VOC2012/JPEGImages"
        ),
    ),
    # VOC 2007 has folders of the same names.
    ("JPEGImages/2007_000027.jpg", "JPEGImages/2007_000032.jpg", "SegmentationClassAug"),
)
CITYSCAPES_SET = DataSet(
    "cityscapes",
    "Cityscapes",
    # The page demands an account.
    (Download("https://www.cityscapes-dataset.com/downloads", "cityscapes", "cityscapes/leftImg8bit"),),
    ("leftImg8bit/val", "gtFine/val", "leftImg8bit/train", "gtFine/train"),
)
COCO_STUFF_SET = DataSet(
    "cocostuff",
    "COCO-Stuff-27",
    (
        # By the README of https://github.com/nightrome/cocostuff.
        Download(
            "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
            "cocostuff/annotations",
            "cocostuff/annotations/val2017",
        ),
        *(Download(f"{COCO_SITE}/zips/{split}.zip", "cocostuff/images", f"cocostuff/images/{split}") for split in COCO_SPLITS),
    ),
    ("annotations/train2017", "annotations/val2017"),
)


def require_at_least(options: object, bounds: Mapping[str, int]) -> None:
    """ValueError if one of these options is given and smaller than its bound."""
    for name, least in bounds.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
