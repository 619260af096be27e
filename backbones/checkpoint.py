"""Reading somebody's checkpoint without running any code in it."""

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar as numpy_scalar
from safetensors import SafetensorError
from safetensors.torch import load_file


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint, or one that is refused for safety."""


class _ConfigNode:
    """Stands in for yacs' CfgNode, a dict subclass, which torch's restricted unpickler cannot fill: becomes an OrderedDict."""

    def __new__(cls) -> Any:
        return OrderedDict()


# What the published files embed beside tensors. Nothing here executes anything when it is rebuilt.
_ALLOWED: list[Any] = [
    argparse.Namespace,  # DINO, SelfPatch: the training options
    (_ConfigNode, "yacs.config.CfgNode"),  # MoBY: the training config
    (numpy_scalar, "numpy.core.multiarray.scalar"),  # numbers logged by files of numpy 1
    (numpy_scalar, "numpy._core.multiarray.scalar"),  # and of numpy 2
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]

_HEAD_BYTES = 512


def load_checkpoint(path: Path) -> Any:
    """Load a `.pth`, `.pt`, `.pth.tar`, `.torch` or `.safetensors` checkpoint on the CPU.

    Returns:
        What the file holds: usually a dict, tensors somewhere inside.

    Raises:
        CheckpointError: If the file is absent, no checkpoint, damaged, or embeds an object outside the allow-list; one line that
            names the file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file (looked for {path.absolute()})")
    _refuse_text(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: damaged safetensors file ({error})") from error
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(str(error))}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        # torch's readers raise each of these for a file cut short, depending on where the cut lies.
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: damaged or truncated checkpoint ({first_line}); copy or download it again") from error


def _refusal(message: str) -> str:
    """Say which object torch's restricted unpickler stopped at."""
    for line in message.splitlines():
        if "Unsupported global" in line or "GLOBAL" in line:
            name = line.split("GLOBAL ")[-1].split(" was not")[0].strip()
            return (
                f"embeds the object {name}, which is not on the allow-list of data-only types; refused, nothing in it was run"
            )
    detail = next((line for line in reversed(message.splitlines()) if "error:" in line.lower()), message.splitlines()[0])
    return f"damaged or refused checkpoint ({detail.strip()}); nothing in it was run"


def _refuse_text(path: Path) -> None:
    """Recognise what downloads leave behind instead of a checkpoint."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise CheckpointError(f"{path}: empty file")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a git-lfs pointer, not the checkpoint; fetch it with `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path}: an HTML page, not a checkpoint; the download address led to a web page")
    if path.suffix != ".safetensors" and not head.startswith((b"PK", b"\x80")) and head.isascii():
        raise CheckpointError(f"{path}: a text file, not a checkpoint")
