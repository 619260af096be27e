"""Where a run starts: afresh, from its own last checkpoint, or from one that is named."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.checkpoint import CheckpointError
from pretrain.distributed import rank
from pretrain.networks import Networks
from pretrain.state import Progress, read_checkpoint, restore_checkpoint

logger = logging.getLogger(__name__)

AUTO, NEVER = "auto", "never"


def start_or_resume(own: Path, resume: str, settings: Mapping[str, Any], networks: Networks) -> Progress:
    """Restore what `train.resume` says.

    A run that has a checkpoint of its own always continues from that one, also when another is named: the same command line has to
    go on after an interruption.

    Args:
        own: Where this run's checkpoint is or will be.
        resume: `auto`, `never`, or a checkpoint file.
        settings: Of this run.
        networks: Fresh; take the checkpoint's values.

    Returns:
        How far the run is; step 0 if it starts afresh.

    Raises:
        CheckpointError: If there is a checkpoint that must not be continued or cannot be; a damaged one is never passed over in
            silence, but the newest intact older one is named.
    """
    if own.exists():
        if resume == NEVER:
            raise CheckpointError(
                f"{own} exists, and train.resume is {NEVER}; choose another train.output, or train.resume {AUTO} to continue it"
            )
        if resume != AUTO and Path(resume) != own and rank() == 0:
            logger.info("train.resume %s is where this run started; it continues from its own %s", resume, own)
        return _restore(own, own, settings, networks)
    if resume in (AUTO, NEVER):
        return Progress(0, [])
    if not Path(resume).is_file():
        raise CheckpointError(
            f"train.resume {resume}: no such file; give {AUTO}, {NEVER}, or a checkpoint of a pretraining run"
        )
    return _restore(Path(resume), own, settings, networks)


def _restore(source: Path, own: Path, settings: Mapping[str, Any], networks: Networks) -> Progress:
    try:
        content = read_checkpoint(source)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_way_out(source)}") from error
    progress = restore_checkpoint(source, content, settings, networks)
    is_elsewhere = source.resolve().parent != own.resolve().parent
    return Progress(progress.step, []) if is_elsewhere else progress


def _way_out(damaged: Path) -> str:
    """What to do about a damaged checkpoint."""
    pattern = f"{damaged.stem.split('_')[0]}_*{damaged.suffix}"
    others = [other for other in damaged.parent.glob(pattern) if other.name != damaged.name]
    for candidate in sorted(others, key=lambda other: other.stat().st_mtime, reverse=True):
        try:
            step = read_checkpoint(candidate)["step"]
        except CheckpointError:
            continue
        return (
            f"the newest intact one beside it is {candidate}, after step {step}: remove {damaged.name} and add "
            f"--train.resume {candidate} to go on from there"
        )
    return f"there is no intact older one beside it; remove {damaged.name} to start afresh"
