"""The backbone file: safetensors with timm's names, and one metadata entry that says what the weights are.

It is what evaluation reads, apart from networks that a user's function returns (`package.module:function`). The metadata entry
`patchbench` holds JSON: `{"version": 1, "spec": {...}, "source": {...}}`. Importing this module and reading only that entry load no
torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from backbones.layouts.base import Source
from backbones.layouts.keys import COUNTS, FLOATS, abbreviate
from backbones.spec import DINOV3_PERIODS, BackboneSpec, FunctionSpec, is_function_name, shown, spec_from_dict, spec_to_dict
from common.files import file_sha256, one_line, text_sha256, without_repetition, write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones.build import AnyBackbone

FILE_VERSION = 1
TIMM_PREFIX = "timm:"
"""Before the name of a pretrained model of timm, which stands for a checkpoint file in every command."""
_METADATA_KEY = "patchbench"
_LARGEST_HEADER = 2**24  # bytes; that of a ViT-g has some 2**17
_LARGEST_FACTS = 100_000  # characters of the metadata, of which there are some 1,000
_LARGEST_WEIGHT = 1e18  # Its square is a number in float32, as norms need it; trained weights stay far below.
_NAMES_SHOWN = 12  # of each kind of mistake


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


def has_sane_header(path: Path) -> bool:
    """Whether the header of a safetensors file lies in it and takes no memory out of proportion."""
    with path.open("rb") as stream:
        return int.from_bytes(stream.read(8), "little") <= min(_LARGEST_HEADER, path.stat().st_size)


def _metadata(path: Path) -> dict[str, str]:
    if not has_sane_header(path):
        raise SafetensorError("no safetensors header")
    with safe_open(path, framework="numpy") as archive:
        return archive.metadata() or {}


def is_backbone_file(path: Path) -> bool:
    """Whether a file is safetensors with a backbone file's metadata; `read_backbone_file` says whether it is a whole one."""
    try:
        return path.is_file() and _METADATA_KEY in _metadata(path)  # opening a pipe would wait for its writer
    except (SafetensorError, OSError):
        return False


def read_header(path: Path) -> tuple[BackboneSpec, Source]:
    """The spec and the source of a backbone file, without its weights; errors are those of `read_backbone_file`."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: a folder, pipe or device, not a backbone file; give the file")
    if is_timm_name(path):
        command = f"python tools/convert_checkpoint.py {path} NET.safetensors"
        raise ValueError(f"{path}: a model of timm, not a backbone file; make one with `{command}`, and give that file")
    if not path.exists():
        raise ValueError(f"{path}: no such file; make it with `python tools/convert_checkpoint.py CKPT {path}`")
    try:
        metadata = _metadata(path)
    except (SafetensorError, OSError) as error:
        way_out = "convert a checkpoint with `python tools/convert_checkpoint.py CKPT OUT`"
        raise ValueError(f"{path}: not a backbone file ({one_line(str(error), 200)}); {way_out}") from error
    if _METADATA_KEY not in metadata:
        way_out = f"convert it with `python tools/convert_checkpoint.py {path} OUT`"
        raise ValueError(f"{path}: safetensors without PatchBench's metadata; {way_out}")
    try:
        return _facts(metadata[_METADATA_KEY])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = one_line(str(error) if type(error) is ValueError else repr(error))
        raise ValueError(f"{path}: damaged metadata ({reason}); convert the checkpoint again") from error


def _facts(text: str) -> tuple[BackboneSpec, Source]:
    """The spec and the source that the metadata states, which check their own fields."""
    if len(text) > _LARGEST_FACTS:
        raise ValueError(f"{len(text):,} characters of it")
    content = json.loads(text, object_pairs_hook=without_repetition)
    if type(content["version"]) is not int or content["version"] != FILE_VERSION:
        raise ValueError(f"backbone file version {shown(content['version'])}, this PatchBench reads {FILE_VERSION}")
    source = Source(**content["source"])
    return spec_from_dict(content["spec"]), source


def read_backbone_file(path: Path) -> BackboneFile:
    """Read a backbone file with its weights, which fill the network and are finite, or call the function that the path names.

    ValueError, which names the file and says what to do, if it is not one, or the function if it gives no backbone.
    """
    if is_function_name(path):
        return _from_function(str(path))
    spec, source = read_header(path)  # and with it that the file is whole
    try:
        with safe_open(path, framework="pt") as archive:
            state_dict = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not iterable itself
        check_fills(spec, state_dict)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(str(error))}; convert the checkpoint again") from error
    return BackboneFile(spec=spec, source=source, state_dict=state_dict, sha256=file_sha256(path))


def _from_function(reference: str) -> BackboneFile:
    """The network that a user's function returns, with the digests of its weights and of its source."""
    from backbones.foreign import FunctionNetwork, function_spec, held_networks, weights_sha256

    spec = function_spec(reference)
    state_dict = FunctionNetwork(spec).state_dict()
    if bad := [name for name, value in state_dict.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"{reference}: weights that are not finite numbers: {abbreviate(bad)}")
    weights = weights_sha256(state_dict)
    source = Source(format="function", branch="none", file_name=reference, sha256=weights)
    if reference in held_networks:
        _, epoch = held_networks[reference]
        source = replace(source, file_name=f"{reference.partition(':')[2]} in memory", epoch=epoch)
    return BackboneFile(spec=spec, source=source, state_dict=state_dict, sha256=text_sha256(spec.source_sha256 + weights))


def load_backbone(path: Path) -> AnyBackbone:
    """The network of a backbone file, in evaluation mode, on the CPU."""
    from backbones.build import network_of

    content = read_backbone_file(path)
    return network_of(content.spec, content.state_dict)


def write_backbone_file(path: Path, spec: BackboneSpec, source: Source, state_dict: Mapping[str, Tensor]) -> None:
    """Write a backbone file atomically, with its parent folders; floating-point weights are stored as float32.

    ValueError if the weights do not fill the spec's network exactly or are not finite as float32.
    """
    if isinstance(spec, FunctionSpec):
        raise ValueError(f"a backbone file cannot hold what {spec.function} returns; give the function itself to --backbone")
    tensors = prepare_weights(spec, state_dict)
    metadata = {"version": FILE_VERSION, "spec": spec_to_dict(spec), "source": asdict(source)}
    save_tensors(path, tensors, {_METADATA_KEY: json.dumps(metadata)})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically, which whoever may read other new files may read; the library's own is its owner's only."""
    from safetensors.torch import save_file

    def write(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(dict(tensors), temporary, metadata)
        temporary.chmod(mode)

    write_atomically(path, write)


def prepare_weights(spec: BackboneSpec, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are written: they fill the spec's network exactly, floating-point ones are float32, none shares memory."""
    check_fills(spec, state_dict)
    return {
        name: (value.float() if value.is_floating_point() else value).contiguous().clone() for name, value in state_dict.items()
    }


def check_fills(spec: BackboneSpec, state_dict: Mapping[str, Tensor]) -> AnyBackbone:
    """Raise ValueError unless the weights fill the spec's network, returned without memory for them, with finite numbers."""
    import torch

    from backbones.build import build_backbone

    with torch.device("meta"):
        network = build_backbone(spec)
    check_weights(network, state_dict)
    _check_numbers(state_dict)
    return network


def check_weights(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raise ValueError, with the missing and unexpected names and the wrong shapes, unless the weights fit exactly."""
    own = network.state_dict()
    problems = {
        "missing": set(own) - set(state_dict),
        "unexpected": set(state_dict) - set(own),
        "of another shape": [
            f"{name} has {tuple(state_dict[name].shape)}, wanted {tuple(own[name].shape)}"
            for name in set(own) & set(state_dict)
            if own[name].shape != state_dict[name].shape
        ],
    }
    if shown := [f"{what}: {abbreviate(names, _NAMES_SHOWN)}" for what, names in problems.items() if names]:
        raise ValueError("the weights do not fit the backbone; " + "; ".join(shown))


def _check_numbers(state_dict: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a weight is not stored as a usual floating-point number, or makes features that are not finite."""
    usual = {name: COUNTS if name.endswith("num_batches_tracked") else FLOATS for name in state_dict}
    if odd := [f"{name} ({tensor.dtype})" for name, tensor in state_dict.items() if str(tensor.dtype) not in usual[name]]:
        raise ValueError(f"weights that are not stored as floating-point numbers: {abbreviate(odd)}")
    if bad := [name for name, tensor in state_dict.items() if not tensor.float().abs().max() <= _LARGEST_WEIGHT]:  # or NaN
        raise ValueError(f"weights that are absurdly large, or not finite numbers: {abbreviate(bad)}")
    if bad := [name for name, tensor in state_dict.items() if name.endswith("running_var") and tensor.min() < 0]:
        raise ValueError(f"negative variances: {abbreviate(bad)}")
    periods = state_dict.get(DINOV3_PERIODS)
    if periods is not None and (periods.min() <= 0 or not (periods.diff() > 0).all()):
        raise ValueError(f"rotary periods must be positive and ascending: {DINOV3_PERIODS}")
