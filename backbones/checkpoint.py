"""Reading somebody's checkpoint without running any code in it.

Published checkpoints embed objects beside tensors. The lists below say which of them are rebuilt; everything else is refused by name.
Configuration classes are rebuilt as empty stand-ins: PatchBench needs neither their values nor their packages.
"""

import argparse
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct as numpy_reconstruct
from numpy._core.multiarray import scalar as numpy_scalar
from safetensors.torch import load_file
from torch import Tensor


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint, or one that is refused for safety."""


# What downloads leave behind instead of a checkpoint: how such files begin, in lower case.
_MISTAKEN_FILES = {
    (b"version https://git-lfs",): "a git-lfs pointer, not the checkpoint; fetch it with `git lfs pull`",
    (b"<!doctype", b"<html", b"<?xml", b"<head"): "an HTML page, not a checkpoint; the download address led to a web page",
    (b"\x1f\x8b", b"bzh", b"\xfd7zxz"): "a compressed file; unpack it first",
}
_HEAD_BYTES = 512
_PICKLE_MARK = b"\x80"
_ZIP_MARK = b"PK"
# The pickled number 0x1950a86a20f9469cfc6c, with which torch's files begin if they are not zip archives.
_LEGACY_TORCH_MARK = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
# torch.save does not compress, so the content is as large as the file.
_LARGEST_EXPANSION = 10

_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # the names of numpy 1 and of numpy 2
_NUMBER_TYPES = (
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
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
        full_name = f"{module}.{name}"
        if full_name not in _ALLOWED_IN_PLAIN_PICKLES:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {full_name} was not allowed")
        return _ALLOWED_IN_PLAIN_PICKLES[full_name]


def load_checkpoint(path: Path) -> Any:
    """Load a `.pth`, `.pt`, `.pth.tar`, `.torch`, `.bin`, `.pkl` or `.safetensors` checkpoint on the CPU.

    CheckpointError, in one line that names the file, if it is absent, not a checkpoint, damaged, larger inside than outside, or
    embeds an object outside the allow-list.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file (looked for {path.absolute()})")
    head = _readable_head(path)
    try:
        checkpoint = _load(path, head)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(str(error))}") from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever a reader raises for a file cut short or scrambled, depending on where
        kind = "safetensors file" if path.suffix == ".safetensors" else "or truncated checkpoint"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: damaged {kind} ({first_line}); copy or download it again") from error
    _refuse_odd_tensors(path, checkpoint)
    return checkpoint


def _load(path: Path, head: bytes) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if head.startswith(_ZIP_MARK):
        _refuse_zip_bomb(path)
    elif head.startswith(_PICKLE_MARK) and _LEGACY_TORCH_MARK not in head[: len(_LEGACY_TORCH_MARK) + 2]:
        with path.open("rb") as stream:  # torch did not write it, as Detectron2's files; Python 2's strings as Latin-1
            return _PlainUnpickler(stream, encoding="latin1").load()
    with torch.serialization.safe_globals(ALLOWED_IN_TORCH_FILES):
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_zip_bomb(path: Path) -> None:
    """Refuse an archive before any of it is unpacked, from its table of contents."""
    with zipfile.ZipFile(path) as archive:
        inside = sum(entry.file_size for entry in archive.infolist())
    outside = path.stat().st_size
    if inside > _LARGEST_EXPANSION * outside:
        raise CheckpointError(
            f"{path}: a zip archive of {outside:,} bytes that would unpack to {inside:,}; torch does not compress, so this is "
            "not a checkpoint; refused, nothing was unpacked"
        )


def _refuse_odd_tensors(path: Path, checkpoint: Any) -> None:
    """Refuse tensors that would need more memory than the file has bytes, and those that are not dense numbers."""
    size = path.stat().st_size
    waiting, seen = [checkpoint], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            waiting.extend(node.values())
        elif isinstance(node, (list, tuple)):
            waiting.extend(node)
        elif isinstance(node, Tensor):
            if node.layout != torch.strided or node.is_quantized or node.is_meta:
                raise CheckpointError(f"{path}: holds a sparse, quantised or empty tensor; only dense numbers can be weights")
            needed = node.numel() * node.element_size()
            if needed > max(size, node.untyped_storage().nbytes()):
                raise CheckpointError(
                    f"{path}: holds a tensor of shape {tuple(node.shape)} that needs {needed:,} bytes; the file has {size:,}; refused"
                )


def _refusal(message: str) -> str:
    """Say which object torch's restricted unpickler stopped at."""
    if match := re.search(r"GLOBAL (.*?)( was not|$)", message, re.MULTILINE):
        return (
            f"embeds the object {match[1]}, which is not on the allow-list of data-only types; refused, nothing in it was run"
        )
    detail = next((line for line in reversed(message.splitlines()) if "error:" in line.lower()), message.splitlines()[0])
    return f"damaged or refused checkpoint ({detail.strip()}); nothing in it was run"


def _readable_head(path: Path) -> bytes:
    """The first bytes; what is not a checkpoint is refused by name."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise CheckpointError(f"{path}: empty file")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, what in _MISTAKEN_FILES.items():
        if text.startswith(beginnings):
            raise CheckpointError(f"{path}: {what}")
    is_known = path.suffix == ".safetensors" or head.startswith((_ZIP_MARK, _PICKLE_MARK))
    if not is_known and head.isascii() and b"\0" not in head:
        raise CheckpointError(f"{path}: a text file, not a checkpoint")
    return head
