"""From a checkpoint of any layout to the run's backbone file."""

import logging
import shutil
from pathlib import Path

from backbones.convert import convert_checkpoint, source_sha256, write_conversion
from backbones.file import BackboneFile, is_backbone_file, read_backbone_file
from backbones.formats.base import Conversion
from backbones.timm_model import PREFIX, is_timm_name
from common.files import write_atomically

logger = logging.getLogger(__name__)

BACKBONE_FILE = "backbone.safetensors"


def run_name(checkpoint: Path) -> str:
    """The name of a run that the user did not name."""
    if is_timm_name(checkpoint):
        return str(checkpoint).removeprefix(PREFIX)
    return checkpoint.resolve().parent.name if checkpoint.stem == "checkpoint" else checkpoint.stem


def read_checkpoint(
    checkpoint: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion | BackboneFile:
    """The backbone of a checkpoint, or of what is a backbone file already.

    Args:
        checkpoint: Its file, or `timm:NAME`.
        format_name: As for `backbones.convert.convert_checkpoint`, and so the others.
        branch: Which of its networks.
        num_heads: Attention heads per block.

    Raises:
        ValueError: If there is none in it.
    """
    if is_backbone_file(checkpoint):
        return read_backbone_file(checkpoint)
    return convert_checkpoint(checkpoint, format_name, branch, num_heads)


def write_backbone(content: Conversion | BackboneFile, checkpoint: Path, output: Path) -> None:
    """Make the run's backbone file, unless it is there already from the same checkpoint.

    Raises:
        ValueError: If the file there comes from another one.
    """
    if output.exists():
        if _is_of(read_backbone_file(output), content, checkpoint):
            return
        raise ValueError(
            f"{output} was made from another checkpoint, or another branch of it; choose another --name, or remove {output.parent}"
        )
    if isinstance(content, Conversion):
        write_conversion(content, checkpoint, output)
        logger.info("%s: %s, branch %s -> %s: %s", checkpoint, content.format, content.branch, output, content.spec)
    else:
        write_atomically(output, lambda temporary: shutil.copyfile(checkpoint, temporary))
        logger.info("%s is a backbone file already: %s", checkpoint, content.spec)


def _is_of(existing: BackboneFile, content: Conversion | BackboneFile, checkpoint: Path) -> bool:
    if isinstance(content, BackboneFile):
        return existing.sha256 == content.sha256
    source = existing.source
    same_file = source.sha256 == source_sha256(checkpoint, content)
    return same_file and source.branch == content.branch and existing.spec == content.spec
