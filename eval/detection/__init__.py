"""Mask R-CNN on COCO."""

from eval.registry import Benchmark, Chart, Download, Task, columns_of
from eval.shared import COCO_SITE, COCO_SPLITS

_AP = (
    *(("box_ap", "box AP", "bbox_mAP"), ("box_ap50", "box AP50", "bbox_mAP_50"), ("box_ap75", "box AP75", "bbox_mAP_75")),
    *(("mask_ap", "mask AP", "segm_mAP"), ("mask_ap50", "mask AP50", "segm_mAP_50"), ("mask_ap75", "mask AP75", "segm_mAP_75")),
)

TASK = Task(
    name="detection",
    fine_tunes=True,
    summary="Fine-tune Mask R-CNN on COCO and measure box and mask AP; every default is the published protocol's.",
    folder="coco",
    dataset="COCO 2017",
    downloads=(
        Download(f"{COCO_SITE}/annotations/annotations_trainval2017.zip", "coco", "coco/annotations"),
        *(Download(f"{COCO_SITE}/zips/{split}.zip", "coco", f"coco/{split}") for split in COCO_SPLITS),
    ),
    signs=("annotations/instances_val2017.json", "annotations/instances_train2017.json", "train2017", "val2017"),
    benchmarks=(
        Benchmark(
            key="coco",
            title="COCO",
            task="detection",
            protocol="coco-mask-rcnn-1x",
            items="images",
            columns=columns_of("coco", _AP),
            footnotes={
                "num_heads": "the released configuration fine-tunes with 8 attention heads, this run with the checkpoint's"
            },
            charts=(
                Chart("bbox_mAP", "bbox_mAP", "Box AP per class"),
                Chart("segm_mAP", "segm_mAP", "Mask AP per class"),
            ),
        ),
    ),
    sample_options=(
        *("--iterations", "60", "--batch-size", "2", "--short-side", "160", "--workers", "0"),
        # A learning rate for so few updates; fewer regions and boxes, for speed.
        "--override",
        "optim_wrapper.optimizer.lr=1e-3",
        "model.train_cfg.rcnn.sampler.num=32",
        "model.test_cfg.rpn.max_per_img=100",
        "model.test_cfg.rcnn.max_per_img=20",
    ),
)
