# Mask R-CNN on COCO with the 1x schedule: what alinlab/SelfPatch 81aef149,
# detection/configs/selfpatch/mask_rcnn_vit_small_12_p16_1x_coco.py and its bases, state beside mmdet's own files. Anchors, assigners,
# samplers, NMS, RoIAlign strides 4 to 32, heads and losses are mmdet's Mask R-CNN R50-FPN, unchanged since mmdet 2.
#
# One iteration is one update of the weights from `batch.total` images, over all devices and accumulated micro-batches. What depends
# on the backbone, the data folder, the devices or the command line is filled in by eval/detection/protocol.py.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(
    imports=[
        *(f"eval.openmmlab.{name}" for name in ("backbone", "loading", "runner", "plots")),
        *("eval.detection.metric", "eval.detection.roi_extractor"),
    ],
    allow_failed_imports=False,
)

batch = dict(total=8, per_device=1, world_size=8)  # 1 image per GPU is published, the number of GPUs inferred
half_precision = True

schedule = dict(
    unit="epochs",  # or iterations
    length=12,
    decay_after=(8 / 12, 11 / 12),  # parts of the length
    decay_factor=0.1,
    warmup_iterations=1000,
    warmup_factor=0.001,
    precise_batch_norm=0,  # batches, see eval/openmmlab/runner.py
)

model = dict(
    backbone=dict(_delete_=True, type="BackboneFromFile"),
    roi_head=dict(
        bbox_roi_extractor=dict(type="Float32RoIExtractor"),
        mask_roi_extractor=dict(type="Float32RoIExtractor"),
    ),
)

# Short sides between the long side's limit of 1333, or after a crop: DETR's augmentation, by way of Swin and XCiT.
long_side = 1333
short_sides = tuple(range(480, 801, 32))
sides_before_crop = (400, 500, 600)
multi_scale = dict(type="RandomChoiceResize", scales=[(long_side, side) for side in short_sides], keep_ratio=True)

train_pipeline = [
    dict(type="ReadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [multi_scale],
            [
                dict(type="RandomChoiceResize", scales=[(long_side, side) for side in sides_before_crop], keep_ratio=True),
                dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600), allow_negative_crop=True),
                multi_scale,
            ],
        ],
    ),
    dict(type="PackDetInputs"),
]

# mmdet's, but for the reading of images.
test_pipeline = [
    dict(type="ReadImage"),
    dict(type="Resize", scale=(long_side, 800), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

train_dataloader = dict(
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    # The published run has one image per GPU: grouping images by aspect ratio would change nothing there.
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = dict(_delete_=True, type="CocoAveragePrecision", ann_file="")

# Written 1e-4 / 2: the rate for a batch of 16, halved.
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-5, betas=(0.9, 0.999), weight_decay=0.05),
    # By substring of the parameter's name. `norm` matches the LayerNorms of the blocks (norm1, norm2); the SyncBN of the pyramid has
    # no such name and is decayed, as published.
    paramwise_cfg=dict(custom_keys={name: dict(decay_mult=0.0) for name in ("pos_embed", "cls_token", "norm")}),
    clip_grad=None,
)

param_scheduler = None  # made from `schedule`, which is in epochs, once the number of training images is known
train_cfg = dict(_delete_=True, type="AccumulatingIterLoop", max_iters=1)
