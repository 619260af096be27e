# shim: remove
from backbones.report import Target as Target
from backbones.report import convert_file as convert_file
