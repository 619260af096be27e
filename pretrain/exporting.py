"""Both networks of a finished run as backbone files, the form in which evaluation takes them."""

from pathlib import Path

from backbones.convert import convert_checkpoint, write_conversion
from backbones.formats.patchbench import BRANCHES


def export_backbones(checkpoint: Path) -> list[Path]:
    """Write `backbone_teacher.safetensors` and `backbone_student.safetensors` beside the checkpoint.

    Args:
        checkpoint: Of a pretraining run.

    Returns:
        The files.
    """
    written = []
    for branch in BRANCHES:
        output = checkpoint.with_name(f"backbone_{branch}.safetensors")
        write_conversion(convert_checkpoint(checkpoint, branch=branch), checkpoint, output)
        written.append(output)
    return written
