# shim: remove
from backbones.layouts.patchbench import FORMAT_MARK as FORMAT_MARK
from backbones.layouts.patchbench import PATCHBENCH
from backbones.layouts.patchbench import VERSION as VERSION

NAME, BRANCHES, matches = PATCHBENCH.name, PATCHBENCH.branches, PATCHBENCH.matches
