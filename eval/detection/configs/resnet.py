# The ResNet rows: Detectron2's Mask R-CNN R50-FPN 1x with batch normalisation everywhere, by which the papers of DenseCL, ReSim and
# DetCo measure; the tables' rows for ResNet-50 are theirs. Source: WXinlong/DenseCL,
# benchmarks/detection/configs/R_50_FPN_1x.yaml, which is HobbitLong/PyContrast 48dbf2f8,
# pycontrast/detection/configs/R_50_FPN_1x.yaml; where they are silent, facebookresearch/detectron2 31696514,
# configs/Base-RCNN-FPN.yaml, and 084acd0f, detectron2/config/defaults.py: SGD with momentum 0.9, weight decay 1e-4 but none on
# norms, linear warm-up of 1000 updates from 0.001, float32. MoCo's authors have SyncBN in backbone and FPN only, and Detectron2's
# usual box head (facebookresearch/moco#34).
#
# mmdet's Mask R-CNN stands in for Detectron2's; it gives SSL backbones somewhat lower AP (open-mmlab/mmdetection#4874). As there,
# Pillow resizes the images, with antialiasing, mask targets come from polygons, and the second stage matches no proposal below its
# threshold. Known differences: RPN matches a box to its best anchor only above an IoU of 0.3 (Detectron2: always); images are not
# grouped by aspect ratio, since groups would depend on the number of devices.
_base_ = ["./base.py"]

batch = dict(total=16, per_device=2)
half_precision = False

schedule = dict(unit="iterations", length=90_000, decay_after=(60 / 90, 80 / 90), precise_batch_norm=200)

sync_batch_norm = dict(type="SyncBN", requires_grad=True)

model = dict(
    # No stage is frozen, and statistics are those of the batch.
    backbone=dict(taps=(0, 1, 2, 3), drop_path_rate=0.0, sync_batch_norm=True),
    neck=dict(norm_cfg=sync_batch_norm),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=sync_batch_norm),
        mask_head=dict(norm_cfg=sync_batch_norm),
    ),
    train_cfg=dict(rcnn=dict(assigner=dict(match_low_quality=False))),
)

train_pipeline = [
    dict(type="ReadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False),
    dict(type="RandomChoiceResize", scales=[(1333, side) for side in range(640, 801, 32)], keep_ratio=True, backend="pillow"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="ReadImage"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
)
