"""What people have in hand, opened: a checkpoint of any known layout, or a backbone file."""

from pathlib import Path

from backbones.convert import convert_checkpoint
from backbones.file import is_backbone_file, read_backbone_file
from backbones.formats.base import Conversion, FormatError


def open_backbone(
    path: Path, format_name: str | None = None, branch: str | None = None, num_heads: int | None = None
) -> Conversion:
    """The backbone of a checkpoint, or of a backbone file as that describes itself.

    A backbone file must not be taken for a bare state dict: its spec states the heads, which its weights do not show.

    Args:
        path: The file.
        format_name: Layout of a checkpoint; None to find it from the keys.
        branch: Which of its networks; None for the layout's default.
        num_heads: Attention heads per block; None for what the layout or the convention of 64 channels says.

    Raises:
        ValueError: If the file holds no backbone, or options are given that a backbone file leaves no room for.
    """
    if not is_backbone_file(path):
        return convert_checkpoint(path, format_name=format_name, branch=branch, num_heads=num_heads)
    if not format_name is branch is num_heads is None:
        raise FormatError(
            f"{path}: is a backbone file already, which states its own layout, branch and heads; leave these options out"
        )
    content = read_backbone_file(path)
    return Conversion(
        format=content.source.format,
        branch=content.source.branch,
        spec=content.spec,
        state_dict=content.state_dict,
        dropped={},
        epoch=content.source.epoch,
        recipe_sha256=content.source.recipe_sha256,
        seed=content.source.seed,
    )
