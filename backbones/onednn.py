# shim: remove
from torch import Tensor, nn


def has_onednn() -> bool:
    return False


def dot_products(left_RI: Tensor, right_OI: Tensor) -> Tensor:
    return left_RI @ right_OI.T


def pack_linear_layers(network: nn.Module) -> None:
    pass
