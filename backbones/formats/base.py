# shim: remove
from backbones.layouts import Conversion as Conversion
from backbones.layouts import abbreviate as abbreviate
