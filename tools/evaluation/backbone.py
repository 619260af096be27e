"""From a checkpoint of any layout to the run's backbone file."""

import logging
import shutil
from pathlib import Path

from backbones.convert import convert_checkpoint, write_conversion
from backbones.file import BackboneFile, BackboneFileError, read_backbone_file
from backbones.formats.base import Conversion
from common.files import file_sha256, write_atomically

logger = logging.getLogger(__name__)

BACKBONE_FILE = "backbone.safetensors"


def run_name(checkpoint: Path) -> str:
    """The name of a run that the user did not name."""
    return checkpoint.resolve().parent.name if checkpoint.stem == "checkpoint" else checkpoint.stem


def read_checkpoint(
    checkpoint: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion | BackboneFile:
    """The backbone of a checkpoint, or of what is a backbone file already.

    Args:
        checkpoint: Its file.
        format_name: As for `backbones.convert.convert_checkpoint`, and so the others.
        branch: Which of its networks.
        num_heads: Attention heads per block.

    Raises:
        ValueError: If there is none in it.
    """
    try:
        return read_backbone_file(checkpoint)
    except BackboneFileError:
        return convert_checkpoint(checkpoint, format_name, branch, num_heads)


def write_backbone(content: Conversion | BackboneFile, checkpoint: Path, output: Path) -> None:
    """Make the run's backbone file, unless it is there already from the same checkpoint.

    Raises:
        ValueError: If the file there comes from another one.
    """
    if output.exists():
        existing = read_backbone_file(output)
        if file_sha256(checkpoint) in (existing.source.sha256, existing.sha256):
            return
        raise ValueError(f"{output} was made from another checkpoint; choose another --name, or remove {output.parent}")
    if isinstance(content, Conversion):
        write_conversion(content, checkpoint, output)
        logger.info("%s: %s, branch %s -> %s: %s", checkpoint, content.format, content.branch, output, content.spec)
    else:
        write_atomically(output, lambda temporary: shutil.copyfile(checkpoint, temporary))
        logger.info("%s is a backbone file already: %s", checkpoint, content.spec)
