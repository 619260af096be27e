"""The checkpoint: everything that a run needs to go on as if it had never stopped."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.checkpoint import CheckpointError, load_checkpoint
from backbones.formats.patchbench import FORMAT_MARK, VERSION
from backbones.spec import spec_to_dict
from common.files import text_sha256, write_atomically
from pretrain.config import PretrainConfig
from pretrain.networks import Networks

CHECKPOINT_FILE = "checkpoint.pth"

_SEED = "train.seed"
_PARTS = "train.accumulate"

# Fields that may change when a run is continued: they influence where and how fast it runs, not what it computes.
_FREE_FIELDS = frozenset(
    {
        "data.path",
        "data.kind",
        "data.tar_index",
        "data.workers",
        "data.pin_workers",
        "data.max_unreadable",
        "train.output",
        "train.device",
        _PARTS,
        "train.compile",
        "train.checkpoint_every",
        "train.keep_last",
        "train.keep_every",
        "train.resume",
        "train.export",
        "train.log_every",
    }
)
_FREE_SECTION = "watch"
"""Looking at a run does not change it."""


class CheckpointNotWrittenError(ValueError):
    """The disk took no checkpoint; the previous one is as it was."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int
    """Steps done; the first step to do."""
    kept: list[str]
    """Names of the older checkpoints that the run has written beside this one and may remove."""


def save_checkpoint(
    path: Path, settings: Mapping[str, Any], networks: Networks, step: int, epoch: int, kept: Sequence[str] = ()
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: Where to.
        settings: From `run_settings`.
        networks: What is trained, with the losses' and the optimiser's running state.
        step: Steps done.
        epoch: Epochs done.
        kept: See `Progress`.

    Raises:
        CheckpointNotWrittenError: If the disk is full or fails; what was at `path` before is still there.
    """
    content = {
        "format": FORMAT_MARK,
        "version": VERSION,
        "settings": dict(settings),
        "recipe_sha256": recipe_digest(settings),
        "seed": settings[_SEED],
        "backbone_spec": spec_to_dict(networks.spec),
        **{name: part.state_dict() for name, part in _parts(networks).items()},
        "step": step,
        "epoch": epoch,
        "kept": list(kept),
    }
    try:
        write_atomically(path, lambda temporary: _write(content, temporary))
    except OSError as error:
        before = "the previous one is intact; " if path.exists() else ""
        raise CheckpointNotWrittenError(
            f"cannot write the checkpoint {path} after step {step}: {error.strerror or error}; {before}"
            "make room, or choose another train.output; the same command continues"
        ) from error


def _write(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            # torch closes its archive after a failed write and complains of that; the failure itself comes before.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The content of a pretraining checkpoint.

    Raises:
        CheckpointError: If the file is damaged or not a pretraining checkpoint of this version.
    """
    content = load_checkpoint(path)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT_MARK or content.get("version") != VERSION:
        raise CheckpointError(f"{path}: not a pretraining checkpoint of this version; choose another train.output")
    return content


def restore_checkpoint(path: Path, content: Mapping[str, Any], settings: Mapping[str, Any], networks: Networks) -> Progress:
    """Bring a run back to where its checkpoint was written.

    Args:
        path: For messages.
        content: From `read_checkpoint`.
        settings: Of the run that goes on.
        networks: Take the checkpoint's values.

    Raises:
        CheckpointError: If the checkpoint belongs to a run with other settings; names them.
    """
    if differences := _differences(content["settings"], settings):
        raise CheckpointError(
            f"{path} belongs to a run with other settings: {'; '.join(differences)}; "
            "give the same ones to continue it, or another train.output to start afresh"
        )
    for name, part in _parts(networks).items():
        part.load_state_dict(content[name])
    # Runs of before older checkpoints were kept have written none.
    return Progress(int(content["step"]), list(content.get("kept", [])))


def _parts(networks: Networks) -> dict[str, nn.Module | Optimizer]:
    return {
        "student": networks.student,
        "teacher": networks.teacher,
        "objective": networks.objective,
        "optimizer": networks.optimizer,
    }


def run_settings(config: PretrainConfig, names: Iterable[str]) -> dict[str, Any]:
    """What a run is, as flat plain values: its configuration, and a digest of its images' names.

    Args:
        config: The run.
        names: Of the images, in their order, relative to `config.data.path`, which itself may move.
    """
    sections = plain_config(config)
    flat = {
        f"{section}.{field}": value
        for section, fields in sections.items()
        if isinstance(fields, dict) and section != _FREE_SECTION
        for field, value in fields.items()
    }
    return {"method": sections["method"], **flat, "data.listing_sha256": text_sha256("\n".join(names))}


def recipe_digest(settings: Mapping[str, Any]) -> str:
    """What runs of one recipe have in common: a digest of their settings, but for the seed and what computes nothing.

    Args:
        settings: From `run_settings`.
    """
    fixed = {name: value for name, value in settings.items() if name not in (*_free_fields(settings), _SEED)}
    return text_sha256(json.dumps(fixed, sort_keys=True))


def _free_fields(settings: Mapping[str, Any]) -> frozenset[str]:
    """What may change; of heads with batch normalisation, the parts of a batch may not: it normalises over each."""
    has_batch_norm = "moby" in settings["method"] or (settings["method"] == "selfpatch" and settings["selfpatch.negatives"])
    return _FREE_FIELDS - {_PARTS} if has_batch_norm else _FREE_FIELDS


def plain_config(config: PretrainConfig) -> dict[str, Any]:
    """The configuration as YAML has it: sections of plain values, which `pretrain.config` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(asdict(config))


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    names = sorted((set(saved) | set(current)) - _free_fields(current))
    return [f"{name} was {saved.get(name)}, is {current.get(name)}" for name in names if saved.get(name) != current.get(name)]


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trainable or not."""
    return sum(parameter.numel() for parameter in network.parameters() if isinstance(parameter, Tensor))
