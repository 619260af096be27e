# The Swin rows: the ViT rows' protocol on Swin's four stages, which have strides 4 to 32 as the FPN and its head expect. No Semantic
# FPN with a self-supervised Swin is published (MoBY's result is UperNet's); our choice is to change nothing but what
# SwinTransformer/Swin-Transformer-Semantic-Segmentation, configs/swin/upernet_swin_tiny_patch4_window7_512x512_160k_ade20k.py, does
# with the backbone: a LayerNorm after every stage, and no weight decay on position biases and on
# LayerNorms, whose names the rule does match there. Its drop path rate of 0.3 is for 160k iterations; 0.1 is kept.
#
# timm shifts windows before it pads a map to whole windows, Swin's code after: borders differ.
_base_ = ["./base.py"]

model = dict(backbone=dict(taps=(0, 1, 2, 3), drop_path_rate=0.1, norm_maps=True))

undecayed = dict(relative_position_bias_table=dict(decay_mult=0.0), norm=dict(decay_mult=0.0))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True, **undecayed)))
