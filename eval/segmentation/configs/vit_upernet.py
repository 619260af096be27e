# UperNet for 160k iterations (`--head upernet`). SelfPatch publishes results (42.3 for DINO, 43.2) and weights, but no config. The
# closest one is XCiT's, facebookresearch/xcit 9a7df940,
# semantic_segmentation/configs/xcit/upernet/upernet_xcit_small_12_p16_160k_ade20k.py: its heads, schedule and batch. Optimiser and
# learning rate are the same in both papers.
#
# Kept from the ViT rows, since SelfPatch's repository has no other segmentation backbone: four maps of the patch size's stride, after
# blocks 3, 6, 9 and 12, drop path 0.1, weight decay on norms. XCiT resamples maps after blocks 4, 6, 8 and 12 to strides 4 to 32 by
# the deconvolution pyramid, with drop path 0.05: --taps 3 5 7 11 --override model.backbone.deconv_pyramid=True
# model.backbone.drop_path_rate=0.05.
_base_ = ["./vit.py"]

batch = dict(total=16, per_device=2, world_size=8)
schedule = dict(iterations=160_000)

sync_batch_norm = dict(type="SyncBN", requires_grad=True)

model = dict(
    neck=None,
    decode_head=dict(
        _delete_=True,
        type="UPerHead",
        in_index=(0, 1, 2, 3),
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=sync_batch_norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=sync_batch_norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
)
