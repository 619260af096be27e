"""Downloads a published checkpoint by name, verifies it, and converts it to a backbone file."""

import difflib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.layouts.base import NOT_STATED
from common.cli import parse, run_command
from tables.reference import CHECKPOINTS_FILE, PublishedCheckpoint, read_checkpoints

PROG = "python tools/fetch_checkpoint.py"

logger = logging.getLogger("fetch_checkpoint")

_TIMEOUT_S = 60
_COLUMNS = ("name", "method", "backbone", "epochs", "format", "licence", "address")


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Download a published checkpoint by name, verify it, and convert it to a backbone file NAME.safetensors."""

    name: tyro.conf.Positional[str] = ""  # Name of the checkpoint; --list shows all of them.
    list: bool = False  # Show the table of checkpoints and download nothing.
    output: Path = Path("data/checkpoints")  # Folder for the checkpoint and the backbone file.
    table: Path = CHECKPOINTS_FILE  # The table of published checkpoints.


def fetch(row: PublishedCheckpoint, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Download, verify and convert a checkpoint. Return the backbone file and the report.

    A checkpoint that is already in the folder is not downloaded again if it has the published digest, or none is published.

    Raises:
        ValueError: If the download fails, or the file is not what the table says; a complete download stays in the folder.
    """
    # These load torch; --help and --list need not wait for it.
    from backbones.convert import Selection, open_backbone, write_conversion
    from backbones.report import report_conversion
    from backbones.spec import architecture_name
    from common.files import file_sha256

    checkpoint, backbone = folder / row.file_name, folder / f"{row.name}.safetensors"
    if not checkpoint.exists():
        logger.info("%s -> %s (licence of the weights: %s)", row.download_address, checkpoint, row.licence or NOT_STATED)
        try:
            download(row.download_address, checkpoint, row.md5)
        except ValueError as error:
            raise ValueError(
                f"{error}. Or download {row.address} by other means to {checkpoint} and give this command again"
            ) from error
    elif difference := md5_difference(checkpoint, row.md5):
        raise ValueError(f"{checkpoint}: {difference}; remove it to download it again")
    conversion = open_backbone(checkpoint, Selection(branch=row.branch or None))
    report = report_conversion(conversion, file_sha256(checkpoint))
    architecture = architecture_name(report["spec"])
    for what, found, expected, fits in (
        ("layout", report["format"], row.format, report["format"] == row.format),
        ("network", architecture, row.backbone, row.is_architecture(architecture)),
    ):
        if expected and not fits:
            raise ValueError(
                f"{checkpoint}: its {what} is {found}, {row.name} should be {expected}; not converted. If you trust the file, use "
                f"`python tools/convert_checkpoint.py {checkpoint} OUT.safetensors`"
            )
    write_conversion(conversion, checkpoint, backbone)
    return backbone, {**report, "licence": row.licence or NOT_STATED}


def download(address: str, target: Path, md5: str = "") -> None:
    """Download to `target`, which only appears when it is complete and verified. Proxies are taken from the environment.

    `md5` is the digest, or the first digits that some authors publish; empty if unknown. ValueError if there is no connection, if the
    answer is an error or a web page, if the download is interrupted, or if the digest differs.
    """
    import pooch

    from eval.image_checks import text_damage

    pooch.get_logger().setLevel("WARNING")
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT_S)

    def get_and_verify(url: str, file: str, _: object) -> None:
        get(url, file, None)
        if text_damage(Path(file)).startswith("web pages"):
            raise ValueError(f"{url}: the answer is a web page instead of the file; open the address in a browser")
        if difference := md5_difference(Path(file), md5):
            raise ValueError(f"{url}: {difference}; the download was removed. The published file or its address has changed")

    try:
        # pooch gives the downloader a temporary file, which it renames afterwards; a broken connection is an error.
        pooch.retrieve(address, known_hash=None, fname=target.name, path=target.parent, downloader=get_and_verify)
    except OSError as error:  # the base of all errors of requests
        raise ValueError(f"{address}: the download failed ({error}); the same command starts it again") from error


def md5_difference(path: Path, md5: str) -> str:
    """How the MD5 digest of a file differs from the published one, or from its first digits; empty if it does not."""
    import pooch

    found = pooch.file_hash(str(path), alg="md5") if md5 else ""
    return "" if found.startswith(md5.lower()) else f"its md5 is {found}, the published one is {md5}"


def main(argv: Sequence[str]) -> int:
    options = parse(FetchOptions, argv, PROG)
    rows = read_checkpoints(options.table)
    if options.list:
        from tools.summary import text_table

        cells = [tuple(getattr(row, column) or "-" for column in _COLUMNS) for row in rows.values()]
        print(text_table(_COLUMNS, cells))  # noqa: T201 - the command's own output
        return 0
    if options.name not in rows:
        given = f"no published checkpoint is called {options.name!r}" if options.name else "give the name of a checkpoint"
        similar = difflib.get_close_matches(options.name, rows)
        hint = f"; of a similar name: {', '.join(similar)}" if similar else ""
        raise ValueError(f"{given}{hint}; --list shows all {len(rows)}")
    from backbones.report import report_lines  # loads torch

    backbone, report = fetch(rows[options.name], options.output)
    for label, text in [*report_lines(report), ("note", rows[options.name].note), ("written", str(backbone))]:
        print(f"{label:>21}: {text}")  # noqa: T201
    return 0


if __name__ == "__main__":
    run_command(main)
