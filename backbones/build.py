"""Build the network that a spec describes; a new architecture needs none, see `backbones.foreign`."""

from collections.abc import Callable

from backbones.dinov3 import DINOv3
from backbones.foreign import FunctionNetwork, TimmNetwork, build_timm_network
from backbones.resnet import BottleneckResNet
from backbones.spec import BackboneSpec, DINOv3Spec, FunctionSpec, ResNetSpec, SwinSpec, TimmSpec, ViTSpec
from backbones.swin import Swin
from backbones.vit import ViT

AnyBackbone = ViT | DINOv3 | Swin | BottleneckResNet | TimmNetwork | FunctionNetwork
"""The adapters: each an `nn.Module` that satisfies `backbones.base.Backbone`."""
_NETWORKS: dict[type[BackboneSpec], Callable[..., AnyBackbone]]
_NETWORKS = {
    **{ViTSpec: ViT, DINOv3Spec: DINOv3, SwinSpec: Swin, ResNetSpec: BottleneckResNet},
    **{TimmSpec: build_timm_network, FunctionSpec: FunctionNetwork},
}


def build_backbone(spec: BackboneSpec, drop_path_rate: float = 0.0) -> AnyBackbone:
    """Build the network of a spec with fresh weights.

    `drop_path_rate` is the stochastic depth of the last block, in [0, 1); only active in training mode.
    """
    return _NETWORKS[type(spec)](spec, drop_path_rate)
