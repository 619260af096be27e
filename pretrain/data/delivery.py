"""The last step of the input: batches of bytes become what networks take, on the device that trains."""

import torch
from torch import Tensor

from pretrain.data.batch_colours import change_batch_colours
from pretrain.data.loader import Batch
from pretrain.data.views import IMAGENET_DEVIATION, IMAGENET_MEAN

_WHITE = 255


def network_inputs(batch: Batch, device: torch.device) -> list[Tensor]:
    """Move crops to a device, change colours that no worker has changed, normalise.

    Bytes travel, a quarter of what floats would be.

    Args:
        batch: From the loader.
        device: Where the networks are.

    Returns:
        float32 [B, 3, size, size] per view, normalised with the ImageNet mean and deviation.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION, device=device)[:, None, None]
    inputs = []
    for view, crops in enumerate(batch.crops):
        levels = crops.to(device, non_blocking=True).float()
        if batch.colours:
            change_batch_colours(levels, batch.colours[view])
        inputs.append(levels.sub_(mean * _WHITE).div_(deviation * _WHITE))
    return inputs
