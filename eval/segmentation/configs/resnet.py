# The ResNet rows: mmseg's FPN-R50 (configs/sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py) with mmseg's 40k schedule: SGD, no
# warm-up, weight decay on everything. How the paper trained its ResNet rows is not published; its code has no config for them. The
# network is the ResNet that the checkpoints are of; mmseg's own has a stem of three convolutions.
_base_ = ["./base.py"]

schedule = dict(warmup_iterations=0, poly_power=0.9, min_learning_rate=1e-4)

# Statistics are those of the batch, of all devices, as in the head.
model = dict(backbone=dict(taps=(0, 1, 2, 3), drop_path_rate=0.0, sync_batch_norm=True))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(_delete_=True, custom_keys=dict()),
)
