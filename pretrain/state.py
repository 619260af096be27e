"""The checkpoint: everything that a run needs to go on as if it had never stopped."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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

# Fields that may change when a run is continued: they influence where and how fast it runs, not what it computes.
_FREE_FIELDS = frozenset(
    {
        "data.path",
        "data.workers",
        "data.max_unreadable",
        "train.output",
        "train.device",
        "train.checkpoint_every",
        "train.keep_every",
        "train.log_every",
    }
)


def save_checkpoint(path: Path, settings: Mapping[str, Any], networks: Networks, step: int, epoch: int) -> None:
    """Write a checkpoint atomically.

    Args:
        path: Where to.
        settings: From `run_settings`.
        networks: What is trained, with the losses' and the optimiser's running state.
        step: Steps done.
        epoch: Epochs done.
    """
    content = {
        "format": FORMAT_MARK,
        "version": VERSION,
        "settings": dict(settings),
        "backbone_spec": spec_to_dict(networks.spec),
        **{name: part.state_dict() for name, part in _parts(networks).items()},
        "step": step,
        "epoch": epoch,
    }
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def keep_copy(path: Path, epoch: int) -> Path:
    """Copy the checkpoint to a name of its own, atomically."""
    copy = path.with_name(f"{path.stem}_epoch{epoch:04d}{path.suffix}")
    write_atomically(copy, lambda temporary: shutil.copyfile(path, temporary))
    return copy


def restore_checkpoint(path: Path, settings: Mapping[str, Any], networks: Networks) -> int:
    """Bring a run back to where its checkpoint was written.

    Returns:
        Steps done; the first step to do.

    Raises:
        CheckpointError: If the file is not a pretraining checkpoint of this version, or belongs to a run with other settings;
            names them.
    """
    content = load_checkpoint(path)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT_MARK or content.get("version") != VERSION:
        raise CheckpointError(f"{path}: not a pretraining checkpoint of this version; choose another train.output")
    if differences := _differences(content["settings"], settings):
        raise CheckpointError(
            f"{path} belongs to a run with other settings: {'; '.join(differences)}; "
            "give the same ones to continue it, or another train.output to start afresh"
        )
    for name, part in _parts(networks).items():
        part.load_state_dict(content[name])
    return int(content["step"])


def _parts(networks: Networks) -> dict[str, nn.Module | Optimizer]:
    return {
        "student": networks.student,
        "teacher": networks.teacher,
        "objective": networks.objective,
        "optimizer": networks.optimizer,
    }


def run_settings(config: PretrainConfig, images: Sequence[Path]) -> dict[str, Any]:
    """What a run is, as flat plain values: its configuration, and a digest of its images' names.

    Args:
        config: The run.
        images: Files below `config.data.path`; the folder itself may move.
    """
    names = "\n".join(path.relative_to(config.data.path).as_posix() for path in images)
    sections = plain_config(config)
    flat = {
        f"{section}.{field}": value
        for section, fields in sections.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
    }
    return {"method": sections["method"], **flat, "data.listing_sha256": text_sha256(names)}


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
    names = sorted((set(saved) | set(current)) - _FREE_FIELDS)
    return [f"{name} was {saved.get(name)}, is {current.get(name)}" for name in names if saved.get(name) != current.get(name)]


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trainable or not."""
    return sum(parameter.numel() for parameter in network.parameters() if isinstance(parameter, Tensor))
