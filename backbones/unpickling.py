"""The objects that published checkpoints embed beside tensors, and how they are rebuilt without running anybody's code.

Everything outside these lists is refused by name. Configuration classes are rebuilt as empty stand-ins: PatchBench needs neither
their values nor their packages.
"""

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct as numpy_reconstruct
from numpy._core.multiarray import scalar as numpy_scalar

_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # the names of numpy 1 and of numpy 2
_NUMBER_TYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)


class _ConfigNode:
    """Stands in for yacs' CfgNode, a dict subclass, which torch's restricted unpickler cannot fill: becomes an OrderedDict."""

    def __new__(cls) -> Any:
        return OrderedDict()


class _OmegaConfPart:
    """Stands in for the containers, nodes and annotations of an omegaconf configuration."""


_OMEGACONF = (
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "typing.Any"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")),
)
_PLAIN_TYPES = (dict, list, tuple, str, int, float, bool)  # omegaconf states the types of its values

ALLOWED_IN_TORCH_FILES: list[Any] = [
    argparse.Namespace,  # DINO, SelfPatch, iBOT, MAE: the training options
    (_ConfigNode, "yacs.config.CfgNode"),  # MoBY: the training config
    *((_OmegaConfPart, name) for name in _OMEGACONF),  # fairseq, VISSL: the training config
    *((kind, f"builtins.{kind.__name__}") for kind in _PLAIN_TYPES),
    *((numpy_scalar, f"{module}.scalar") for module in _NUMPY_MODULES),  # logged numbers
    *((numpy_reconstruct, f"{module}._reconstruct") for module in _NUMPY_MODULES),  # Detectron2: the weights
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in _NUMBER_TYPES),
]
"""Beside what torch's own restricted unpickler allows, for `torch.serialization.safe_globals`."""


def _encode(text: str, encoding: str) -> bytes:
    """The only use of `_codecs.encode` in pickles: bytes, written as Latin-1 text by protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


# No Python classes: a hostile pickle could set attributes on those.
_ALLOWED_IN_PLAIN_PICKLES: dict[str, Any] = {
    **{f"{module}._reconstruct": numpy_reconstruct for module in _NUMPY_MODULES},
    **{f"{module}.scalar": numpy_scalar for module in _NUMPY_MODULES},
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """Rebuilds containers, numbers, strings and NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """The object behind a name; anything but the list above is refused."""
        full_name = f"{module}.{name}"
        if full_name not in _ALLOWED_IN_PLAIN_PICKLES:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {full_name} was not allowed")
        return _ALLOWED_IN_PLAIN_PICKLES[full_name]


def load_plain_pickle(path: Path) -> Any:
    """Load a pickle that torch did not write, as Detectron2's files are; Python 2's strings as Latin-1.

    Raises:
        pickle.UnpicklingError: If it embeds an object outside the list, or is damaged; the unpickler has other errors for that too.
    """
    with path.open("rb") as stream:
        return _PlainUnpickler(stream, encoding="latin1").load()
