"""The backbone file: safetensors with timm's names, and one metadata entry that says what the weights are.

It is the only thing that evaluation reads. The metadata entry `patchbench` holds JSON:
`{"version": 1, "spec": {...}, "source": {...}}`. Importing this module and reading only that entry load no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from backbones.spec import BackboneSpec, spec_from_dict, spec_to_dict
from common.files import file_sha256, write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones.build import AnyBackbone

FILE_VERSION = 1
TIMM_PREFIX = "timm:"
"""Before the name of a pretrained model of timm, which stands for a checkpoint file in every command."""
_METADATA_KEY = "patchbench"
_LARGEST_HEADER = 2**24  # bytes; of a ViT-g it is 2**17


class BackboneFileError(ValueError):
    """A backbone file that cannot be read, or weights that do not fit their spec."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights of a backbone file come from."""

    format: str  # Name of the checkpoint layout, as in `backbones.layouts.LAYOUTS`.
    branch: str  # Which of the checkpoint's networks was taken, such as `teacher`.
    file_name: str  # Name of the checkpoint file, without its folder.
    sha256: str  # Digest of the checkpoint file.
    epoch: int  # Completed epochs; like the seed -1 where the checkpoint states none.
    recipe_sha256: str = ""
    """Digest of the pretraining's settings apart from its seed; empty where the checkpoint states none (all but PatchBench's own)."""
    seed: int = -1


@dataclass(frozen=True, kw_only=True)
class BackboneFile:
    """The content of a backbone file, weights under timm's names; the digest is that of the file, and identifies it in results."""

    spec: BackboneSpec
    source: Source
    state_dict: dict[str, Tensor]
    sha256: str


def is_timm_name(source: Path) -> bool:
    """Whether this names a model of timm and not a file."""
    return os.fspath(source).startswith(TIMM_PREFIX)


def check_header_size(path: Path) -> None:
    """Raise BackboneFileError for a safetensors file whose header would take memory out of proportion."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
    if size > min(_LARGEST_HEADER, path.stat().st_size):
        raise BackboneFileError(f"{path}: not a backbone file (its header of {size:,} bytes is not one)")


def is_backbone_file(path: Path) -> bool:
    """Whether a file is safetensors with a backbone file's metadata; `read_backbone_file` says whether it is a whole one."""
    try:
        with safe_open(path, framework="numpy") as archive:
            return _METADATA_KEY in (archive.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_header(path: Path) -> tuple[BackboneSpec, Source]:
    """The spec and the source of a backbone file, without its weights; errors are those of `read_backbone_file`."""
    if not path.is_file():
        raise BackboneFileError(f"{path}: no such file; make it with `python tools/convert_checkpoint.py CKPT {path}`")
    try:
        with safe_open(path, framework="numpy") as archive:
            metadata = archive.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BackboneFileError(
            f"{path}: not a backbone file ({error}); convert a checkpoint with `python tools/convert_checkpoint.py CKPT OUT`"
        ) from error
    if _METADATA_KEY not in metadata:
        raise BackboneFileError(
            f"{path}: safetensors without PatchBench's metadata; convert it with `python tools/convert_checkpoint.py {path} OUT`"
        )
    try:
        content = json.loads(metadata[_METADATA_KEY])
        if content["version"] != FILE_VERSION:
            raise BackboneFileError(f"{path}: backbone file version {content['version']}, this PatchBench reads {FILE_VERSION}")
        return spec_from_dict(content["spec"]), Source(**content["source"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise BackboneFileError(f"{path}: damaged metadata ({error!r}); convert the checkpoint again") from error


def read_backbone_file(path: Path) -> BackboneFile:
    """Read a backbone file with its weights; BackboneFileError, which names the file and says what to do, if it is not one."""
    spec, source = read_header(path)  # and with it that the file is whole
    with safe_open(path, framework="pt") as archive:
        state_dict = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not iterable itself
    return BackboneFile(spec=spec, source=source, state_dict=state_dict, sha256=file_sha256(path))


def load_backbone(path: Path, drop_path_rate: float = 0.0) -> AnyBackbone:
    """Build the network of a backbone file and load its weights strictly; in evaluation mode, on the CPU."""
    from backbones.build import build_backbone

    content = read_backbone_file(path)
    network = build_backbone(content.spec, drop_path_rate)
    load_strictly(network, content.state_dict)
    return network.eval()


def write_backbone_file(path: Path, spec: BackboneSpec, source: Source, state_dict: Mapping[str, Tensor]) -> None:
    """Write a backbone file atomically, with its parent folders; floating-point weights are stored as float32.

    BackboneFileError if the weights do not fill the spec's network exactly.
    """
    from safetensors.torch import save_file

    tensors = prepare_weights(spec, state_dict)
    metadata = {"version": FILE_VERSION, "spec": spec_to_dict(spec), "source": asdict(source)}
    header = {_METADATA_KEY: json.dumps(metadata)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def prepare_weights(spec: BackboneSpec, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are written: they fill the spec's network exactly, floating-point ones are float32, none shares memory."""
    check_fills(spec, state_dict)
    return {
        name: (value.float() if value.is_floating_point() else value).contiguous().clone() for name, value in state_dict.items()
    }


def check_fills(spec: BackboneSpec, state_dict: Mapping[str, Tensor]) -> AnyBackbone:
    """`check_weights` of the spec's network, which is returned without memory for its weights."""
    import torch

    from backbones.build import build_backbone

    with torch.device("meta"):
        network = build_backbone(spec)
    check_weights(network, state_dict)
    return network


def check_weights(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raise BackboneFileError, with every missing and unexpected name and every wrong shape, unless the weights fit exactly."""
    own = network.state_dict()
    problems = []
    if missing := sorted(set(own) - set(state_dict)):
        problems.append(f"missing: {', '.join(missing)}")
    if unexpected := sorted(set(state_dict) - set(own)):
        problems.append(f"unexpected: {', '.join(unexpected)}")
    for name in sorted(set(own) & set(state_dict)):
        if own[name].shape != state_dict[name].shape:
            problems.append(f"{name} has shape {tuple(state_dict[name].shape)}, wanted {tuple(own[name].shape)}")
    if problems:
        raise BackboneFileError("the weights do not fit the backbone; " + "; ".join(problems))


def load_strictly(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights into a network after `check_weights`."""
    check_weights(network, state_dict)
    network.load_state_dict(dict(state_dict), strict=True)
