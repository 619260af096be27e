"""A run's folder and processes: what evaluating one checkpoint and running a whole ablation share."""

import dataclasses
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from backbones.convert import source_sha256, write_conversion
from backbones.file import TIMM_PREFIX, is_backbone_file, is_timm_name, read_backbone_file
from backbones.layouts import Conversion
from common.files import file_sha256, write_atomically
from common.launch import LaunchOptions

logger = logging.getLogger(__name__)

BACKBONE_FILE = "backbone.safetensors"


def run_name(checkpoint: Path) -> str:
    """The name of a run that the user did not name."""
    if is_timm_name(checkpoint):
        return str(checkpoint).removeprefix(TIMM_PREFIX)
    return checkpoint.resolve().parent.name if checkpoint.stem == "checkpoint" else checkpoint.stem


def write_backbone(conversion: Conversion, checkpoint: Path, output: Path) -> None:
    """Make the run's backbone file, unless it is there already from the same checkpoint.

    Args:
        conversion: What `open_backbone` took from the checkpoint.
        checkpoint: A checkpoint, a backbone file, which is copied, or `timm:NAME`.
        output: The run's backbone file.

    Raises:
        ValueError: If the file there comes from another checkpoint.
    """
    if output.exists():
        if _is_of(output, conversion, checkpoint):
            return
        raise ValueError(
            f"{output} was made from another checkpoint, or another branch of it; choose another --name, or remove {output.parent}"
        )
    if not is_timm_name(checkpoint) and is_backbone_file(checkpoint):
        write_atomically(output, lambda temporary: shutil.copyfile(checkpoint, temporary))
        logger.info("%s is a backbone file already: %s", checkpoint, conversion.spec)
    else:
        write_conversion(conversion, checkpoint, output)
        logger.info("%s: %s, branch %s -> %s: %s", checkpoint, conversion.format, conversion.branch, output, conversion.spec)


def _is_of(output: Path, conversion: Conversion, checkpoint: Path) -> bool:
    if not is_timm_name(checkpoint) and is_backbone_file(checkpoint):
        return file_sha256(output) == file_sha256(checkpoint)
    existing = read_backbone_file(output)
    same_file = existing.source.sha256 == source_sha256(checkpoint, conversion)
    return same_file and existing.source.branch == conversion.branch and existing.spec == conversion.spec


def launch_arguments(options: LaunchOptions) -> list[str]:
    """The launch options as `common.launch.run_or_launch` takes them at the end of a command line."""
    arguments = []
    for item in dataclasses.fields(LaunchOptions):
        value = getattr(options, item.name)
        if value is None or value is False or value == []:
            continue
        arguments.append(f"--{item.name.replace('_', '-')}")
        if isinstance(value, list):
            arguments += map(str, value)
        elif value is not True:
            arguments.append(str(value))
    return arguments


def local_processes(options: LaunchOptions) -> int:
    """How many processes a command takes that runs here: --gpus, else NPROC_PER_NODE, else the number of GPUs."""
    import torch  # slow to load, and not needed for --help

    return options.gpus or int(os.environ.get("NPROC_PER_NODE", "0")) or torch.cuda.device_count() or 1


def gpus_argument(processes: int) -> Sequence[str]:
    """`--gpus N` for more than one process."""
    return ["--gpus", str(processes)] if processes > 1 else []
