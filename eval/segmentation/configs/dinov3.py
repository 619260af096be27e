# DINOv3's ViTs: the ViT rows' protocol (vit.py), which is our choice. Its authors publish no Semantic FPN: they train linear layers
# or a Mask2Former on the frozen backbone. Rotary positions follow every input size by themselves: there is nothing to resize.
_base_ = ["./base.py"]

model = dict(backbone=dict(taps=(2, 5, 8, 11), drop_path_rate=0.1, num_heads=None, deconv_pyramid=False))
