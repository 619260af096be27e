# The ViT rows (patch size 16 or 8): maps after blocks 4, 6, 8 and 12, without a norm on them, resampled to strides 4 to 32 by the
# deconvolution pyramid. Position embeddings stay at the pretraining grid and are interpolated by DINO's rule in every pass.
_base_ = ["./base.py"]

# The heads are the backbone file's; the released config says 8 for a ViT-S, see eval/detection/protocol.py.
positions = dict(position_resize="dino", position_image_size=None)
model = dict(
    backbone=dict(taps=(3, 5, 7, 11), num_heads=None, class_token=True, drop_path_rate=0.05, **positions, deconv_pyramid=True)
)
