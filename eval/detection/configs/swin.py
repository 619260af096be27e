# The Swin rows: the four stages give strides 4 to 32 themselves, each followed by a new LayerNorm. Published: MoBY's Swin-T (43.6 box
# AP), fine-tuned by SwinTransformer/Swin-Transformer-Object-Detection,
# configs/swin/mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_adamw_1x_coco.py, which the base file's augmentation comes from.
#
# Two departures, both at borders only. timm shifts windows before it pads a map to whole windows, the published code after. The
# published run groups the two images of a device by aspect ratio, so that they are padded less; here groups would depend on the
# number of devices.
_base_ = ["./base.py"]

batch = dict(total=16, per_device=2)

# schedule_1x.py:8 there (c7b20110) warms up for 500 updates.
schedule = dict(warmup_iterations=500)

model = dict(backbone=dict(taps=(0, 1, 2, 3), drop_path_rate=0.1, norm_maps=True))

undecayed = dict(relative_position_bias_table=dict(decay_mult=0.0), norm=dict(decay_mult=0.0))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(custom_keys=dict(_delete_=True, **undecayed)))
