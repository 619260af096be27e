# shim: remove
from backbones.base import PlainViT as PlainViT
