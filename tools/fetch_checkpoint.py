"""Download a published checkpoint by name, verify it, and convert it to a backbone file."""

import difflib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.convert import write_conversion
from backbones.opening import open_backbone
from backbones.report import NOT_STATED, ConversionReport, report_conversion
from common.command import config_parser, run_command
from common.download import DownloadError, download, md5_difference
from common.files import file_sha256
from tables.architecture import architecture_name
from tables.checkpoints import CHECKPOINTS_FILE, PublishedCheckpoint, read_checkpoints

logger = logging.getLogger("fetch_checkpoint")

_COLUMNS = ("name", "method", "backbone", "epochs", "format", "licence", "address")


@dataclass(kw_only=True)
class FetchOptions:
    """Download a published checkpoint by name, verify it, and convert it to a backbone file NAME.safetensors."""

    output: Path = Path("data/checkpoints")
    """Folder for the checkpoint and the backbone file."""
    table: Path = CHECKPOINTS_FILE
    """The table of published checkpoints."""


def fetch(row: PublishedCheckpoint, folder: Path) -> tuple[Path, ConversionReport]:
    """Download, verify, convert. Returns the backbone file and what was taken.

    A checkpoint that lies in the folder already, with the published digest if there is one, is not downloaded again.

    Raises:
        ValueError: If the download fails, or the file is not what the table says; a whole download stays in the folder.
    """
    checkpoint, backbone = folder / row.file_name, folder / f"{row.name}.safetensors"
    if not checkpoint.exists():
        logger.info("%s -> %s (licence of the weights: %s)", row.download_address, checkpoint, row.licence or NOT_STATED)
        try:
            download(row.download_address, checkpoint, row.md5)
        except DownloadError as error:
            raise DownloadError(
                f"{error}. Or put the file, from {row.address}, at {checkpoint} and give this command again"
            ) from error
    elif difference := md5_difference(checkpoint, row.md5):
        raise ValueError(f"{checkpoint}: {difference}; remove it to download it again")
    conversion = open_backbone(checkpoint, branch=row.branch or None)
    report = report_conversion(conversion, file_sha256(checkpoint))
    architecture = architecture_name(report.spec)
    for what, found, expected, fits in (
        ("layout", report.format, row.format, report.format == row.format),
        ("network", architecture, row.backbone, row.is_architecture(architecture)),
    ):
        if expected and not fits:
            raise ValueError(
                f"{checkpoint}: its {what} is {found}, {row.name} should be {expected}; not converted. If you trust the file, use "
                f"`python tools/convert_checkpoint.py {checkpoint} OUT.safetensors`"
            )
    write_conversion(conversion, checkpoint, backbone)
    return backbone, replace(report, licence=row.licence or NOT_STATED)


def listing(rows: Sequence[PublishedCheckpoint]) -> str:
    """The table in aligned columns; `-` where nothing is stated."""
    cells = [_COLUMNS, *(tuple(getattr(row, column) or "-" for column in _COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells)


def main(argv: Sequence[str]) -> int:
    """Parse, fetch or list, report."""
    parser = config_parser("python tools/fetch_checkpoint.py", FetchOptions.__doc__ or "")
    parser.add_argument("name", nargs="?", help="which checkpoint; --list shows all")
    parser.add_argument("--list", action="store_true", help="show the table instead")
    parser.add_class_arguments(FetchOptions, as_group=False)
    values = parser.parse_args(list(argv)).as_dict()
    name, show = values.pop("name"), values.pop("list")
    options = FetchOptions(**values)
    rows = read_checkpoints(options.table)
    if show:
        print(listing(list(rows.values())))  # noqa: T201 - the command's own output
        return 0
    if name not in rows:
        given = f"no published checkpoint is called {name!r}" if name else "give the name of a checkpoint"
        similar = difflib.get_close_matches(name or "", rows)
        hint = f"; of a similar name: {', '.join(similar)}" if similar else ""
        raise ValueError(f"{given}{hint}; --list shows all {len(rows)}")
    backbone, report = fetch(rows[name], options.output)
    lines = [*report.lines(), ("note", rows[name].note), ("written", str(backbone))]
    for label, text in lines:
        print(f"{label:>21}: {text}")  # noqa: T201
    return 0


if __name__ == "__main__":
    run_command(main)
