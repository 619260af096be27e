# shim: remove
from backbones.convert import open_backbone as open_backbone
