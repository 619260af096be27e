# The ViT rows. Maps after blocks 3, 6, 9 and 12. Position embeddings are resized once at loading, to the grid of the training crop,
# and from there to the grid of each test image, both bicubically to the exact size.
_base_ = ["./base.py"]

positions = dict(position_resize="size", position_image_size={{_base_.crop}})
model = dict(
    backbone=dict(taps=(2, 5, 8, 11), num_heads=None, class_token=True, drop_path_rate=0.1, **positions, deconv_pyramid=False)
)
