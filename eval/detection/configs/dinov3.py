# DINOv3's ViTs: the ViT rows' protocol (vit.py), which is our choice. Its authors publish no Mask R-CNN: they train a Plain-DETR on
# the frozen backbone. Rotary positions follow every input size by themselves, so that there is nothing to interpolate.
_base_ = ["./base.py"]

model = dict(backbone=dict(taps=(3, 5, 7, 11), drop_path_rate=0.05, num_heads=None, deconv_pyramid=True))
