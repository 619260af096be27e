"""Naming the batch after which a number was no longer finite."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from common.files import write_text_atomically
from pretrain.distributed import gather_from_processes, rank, world_size
from pretrain.sentinel import Sent

BATCH_FILE = "nonfinite_batch.json"


def nonfinite_error(sent: Sent, epoch: int, images: Sequence[str], output: Path, checkpoint: Path) -> ValueError:
    """Write down the batch and make the error that ends the run; all processes call this together.

    Args:
        sent: The step.
        epoch: Its 0-based epoch.
        images: Where those of the global batch lie, in its order; an unreadable one was replaced by the next readable one.
        output: The run's folder.
        checkpoint: The last good one, if it exists.
    """
    losses = gather_from_processes(sent.losses["loss"].reshape(1)).tolist()
    path = output / BATCH_FILE
    if rank() == 0:
        content = {
            "step": sent.step,
            "epoch": epoch,
            # As text: JSON has no word for what is not finite.
            "losses": [str(loss) for loss in losses],
            "images": [list(images[process :: world_size()]) for process in range(world_size())],
        }
        write_text_atomically(path, json.dumps(content, indent=1) + "\n")
    bad = [loss for loss in losses if not torch.isfinite(torch.tensor(loss))]
    what = (
        f"the loss became {bad[0]}" if bad else f"the loss was {losses[0]:.4g} but the update left weights that are not finite"
    )
    kept = f"{checkpoint} is from before" if checkpoint.exists() else "no checkpoint was written yet"
    return ValueError(
        f"{what} at step {sent.step} (epoch {epoch}); its {len(images)} images, from {images[0]} on, are listed in {path}; {kept}. "
        "Lower optim.lr, or use train.precision float32"
    )
