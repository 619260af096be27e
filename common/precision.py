"""Float32 that is float32 on every device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep GPUs from rounding the factors of float32 products to TF32, with its 10 bits of mantissa, inside the block.

    On NVIDIA GPUs since Ampere, PyTorch does that to convolutions unless told otherwise (`torch.backends.cudnn.allow_tf32`): to every
    layer of a ResNet and to the patch embedding of a ViT. Features would then depend on the machine. Also a decorator.
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
