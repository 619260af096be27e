"""Build the network that a spec describes; a new architecture needs none, see `backbones.foreign`."""

from collections.abc import Mapping

from torch import Tensor

from backbones.file import check_weights
from backbones.foreign import FunctionNetwork, TimmNetwork, build_timm_network
from backbones.spec import BackboneSpec, DINOv3Spec, FunctionSpec, ResNetSpec, SwinSpec, TimmSpec, ViTSpec
from backbones.stages import BottleneckResNet, Swin
from backbones.vit import DINOv3, ViT

AnyBackbone = ViT | DINOv3 | Swin | BottleneckResNet | TimmNetwork | FunctionNetwork
"""The adapters: each an `nn.Module` that satisfies `backbones.base.Backbone`."""


def build_backbone(spec: BackboneSpec, drop_path_rate: float = 0.0) -> AnyBackbone:
    """Build the network of a spec with fresh weights.

    `drop_path_rate` is the stochastic depth of the last block, in [0, 1); only active in training mode.
    """
    match spec:
        case ViTSpec():
            return ViT(spec, drop_path_rate)
        case DINOv3Spec():
            return DINOv3(spec, drop_path_rate)
        case SwinSpec():
            return Swin(spec, drop_path_rate)
        case ResNetSpec():
            return BottleneckResNet(spec, drop_path_rate)
        case TimmSpec():
            return build_timm_network(spec, drop_path_rate)
        case FunctionSpec():
            return FunctionNetwork(spec, drop_path_rate)


def network_of(spec: BackboneSpec, weights: Mapping[str, Tensor], drop_path_rate: float = 0.0) -> AnyBackbone:
    """The network of a spec with these weights, which must fill it exactly; in evaluation mode, on the CPU."""
    network = build_backbone(spec, drop_path_rate)
    check_weights(network, weights)
    network.load_state_dict(dict(weights))
    return network.eval()
