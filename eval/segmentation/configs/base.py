# Semantic FPN on ADE20K for 40k iterations: what alinlab/SelfPatch 81aef149,
# segmentation/configs/semfpn_vit-s16_512x512_40k_ade20k.py, states beside mmseg's own files.
#
# One iteration is one update of the weights from `batch.total` images, over all devices and accumulated micro-batches. What
# depends on the backbone, the data folder, the devices or the command line is filled in by eval/segmentation/protocol.py.
_base_ = [
    "mmseg::_base_/models/fpn_r50.py",
    "mmseg::_base_/datasets/ade20k.py",
    "mmseg::_base_/default_runtime.py",
    "mmseg::_base_/schedules/schedule_40k.py",
]

custom_imports = dict(
    imports=[*(f"eval.openmmlab.{name}" for name in ("backbone", "loading", "runner", "plots")), "eval.segmentation.metric"],
    allow_failed_imports=False,
)

schedule = dict(iterations=40_000, warmup_iterations=1_500, warmup_factor=1e-6, poly_power=1.0, min_learning_rate=0.0)
crop = 512
scale = (2048, 512)  # largest long and short side, the ratio kept
batch = dict(total=16, per_device=4, world_size=4)  # the number of GPUs is inferred from a comment, "8 GPUs x 2"

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(crop, crop)),
    backbone=dict(_delete_=True, type="BackboneFromFile"),
    # The four maps go into the FPN as they are, whatever their strides: a ViT's all have its patch size as stride. The head
    # upsamples them by `feature_strides` all the same.
    decode_head=dict(num_classes=150),
)

# mmseg's own pipelines, spelt out for their two checked readers.
train_pipeline = [
    dict(type="ReadImage"),
    dict(type="ReadLabels"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(crop, crop), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="ReadImage"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="ReadLabels"),  # after the resizing, which leaves the ground truth as it is
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = dict(_delete_=True, type="PixelCounts")

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # The published file also exempts "norm", a name that occurs in no parameter of its network (ln1, ln2, bn): there, LayerNorm
    # and BatchNorm are decayed. Here blocks have a norm1 and a norm2, so "norm" must be left out to the same effect.
    paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0))),
)

param_scheduler = None  # made from `schedule`

# The published run also evaluates every 4000 iterations. That changes no metric: the last weights are reported.
train_cfg = dict(type="AccumulatingIterLoop", max_iters=1)
