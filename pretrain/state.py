"""The checkpoint: everything that a run needs to go on as if it had never stopped."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.checkpoint import CheckpointError, load_checkpoint
from backbones.formats.patchbench import FORMAT_MARK, VERSION
from backbones.spec import BackboneSpec, spec_to_dict
from common.files import write_atomically
from pretrain.config import PretrainConfig
from pretrain.objectives.base import Objective

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


def save_checkpoint(
    path: Path,
    config: PretrainConfig,
    spec: BackboneSpec,
    student: nn.Module,
    teacher: nn.Module,
    objective: Objective,
    optimizer: Optimizer,
    step: int,
    epoch: int,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: Where to.
        config: The run.
        spec: The backbone.
        student: Not wrapped.
        teacher: Its moving average.
        objective: Its buffers are the losses' running state.
        optimizer: AdamW's moments.
        step: Steps done.
        epoch: Epochs done.
    """
    content = {
        "format": FORMAT_MARK,
        "version": VERSION,
        "config": flatten(asdict(config)),
        "backbone_spec": spec_to_dict(spec),
        "student": student.state_dict(),
        "teacher": teacher.state_dict(),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "epoch": epoch,
    }
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def keep_copy(path: Path, epoch: int) -> Path:
    """Copy the checkpoint to a name of its own, atomically."""
    copy = path.with_name(f"{path.stem}_epoch{epoch:04d}{path.suffix}")
    write_atomically(copy, lambda temporary: shutil.copyfile(path, temporary))
    return copy


def restore_checkpoint(
    path: Path,
    config: PretrainConfig,
    student: nn.Module,
    teacher: nn.Module,
    objective: Objective,
    optimizer: Optimizer,
) -> int:
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
    if differences := _differences(content["config"], flatten(asdict(config))):
        raise CheckpointError(
            f"{path} belongs to a run with other settings: {'; '.join(differences)}; "
            "give the same ones to continue it, or another train.output to start afresh"
        )
    modules: dict[str, nn.Module | Optimizer] = {
        "student": student,
        "teacher": teacher,
        "objective": objective,
        "optimizer": optimizer,
    }
    for name, module in modules.items():
        module.load_state_dict(content[name])
    return int(content["step"])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections to `section.field` names; values as plain data."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value if isinstance(value, (int, float, str, bool)) else _plain(value)
    return flat


def _plain(value: Any) -> Any:
    return (
        [_plain(item) for item in value]
        if isinstance(value, (list, tuple))
        else value
        if isinstance(value, float)
        else str(value)
    )


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    names = sorted((set(saved) | set(current)) - _FREE_FIELDS)
    return [f"{name} was {saved.get(name)}, is {current.get(name)}" for name in names if saved.get(name) != current.get(name)]


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trainable or not."""
    return sum(parameter.numel() for parameter in network.parameters() if isinstance(parameter, Tensor))
