"""Convert any known checkpoint to a backbone file, or to another tool's layout, and report what was taken."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.build import build_backbone
from backbones.convert import FORMATS, write_conversion
from backbones.export import check_export, export_backbone
from backbones.file import is_backbone_file, load_strictly
from backbones.formats.base import Conversion
from backbones.inspection import Inspection, inspect_backbone
from backbones.opening import open_backbone
from backbones.report import report_conversion
from common.command import config_parser, run_command
from common.files import file_sha256, write_text_atomically

STDOUT = "-"


@dataclass(kw_only=True)
class ConvertOptions:
    """Convert any known checkpoint to a backbone file, or to another tool's layout, and report what was taken."""

    format: str = "auto"
    """The checkpoint's layout; `auto` finds it from the keys."""
    branch: str = "default"
    """Which of its networks to take; `default` is the one behind the published numbers."""
    num_heads: int | None = None
    """Attention heads per block, which the weights do not show; by default what the layout or 64 channels per head say."""
    to: Literal["backbone", "timm", "dino", "selfpatch"] = "backbone"
    """What OUTPUT becomes: a backbone file, or a checkpoint for other tools (.safetensors, .pth or .pt)."""
    check: Path | None = None
    """An image to run through the backbone: prints feature statistics and warns of signs of an untrained network."""
    json: str | None = None
    """A file NAME.json for the report; alone or `-`: to stdout instead of the text."""

    def __post_init__(self) -> None:
        """Reject what is no report's name: `--json CKPT OUT` would otherwise overwrite the checkpoint."""
        if self.json not in (None, STDOUT) and Path(str(self.json)).suffix != ".json":
            raise ValueError(f"--json {self.json}: the report's name must end in .json; `--json` alone, put last, prints it")


def write(conversion: Conversion, checkpoint: Path, output: Path, to: str) -> str:
    """Write OUTPUT. Returns what its reader must know, empty if nothing.

    Raises:
        ValueError: If the weights do not fit the spec, or the layout cannot hold them.
    """
    if to != "backbone":
        return export_backbone(output, to, conversion.spec, conversion.state_dict, conversion.epoch)
    write_conversion(conversion, checkpoint, output)
    return ""


def inspect(conversion: Conversion, image: Path) -> Inspection:
    """Load the weights and run an image through them."""
    network = build_backbone(conversion.spec)
    load_strictly(network, conversion.state_dict)
    return inspect_backbone(network, image)


def check_output(checkpoint: Path, output: Path, to: str) -> None:
    """Raise ValueError before anything is read if OUTPUT cannot become what is wanted."""
    if output.resolve() == checkpoint.resolve():
        raise ValueError(f"the output {output} is the checkpoint itself, which would be overwritten; choose another name")
    if to != "backbone":
        check_export(output, to)
    elif output.suffix != ".safetensors":
        raise ValueError(f"the output {output} must end in .safetensors; for other tools' layouts pass --to")
    elif is_backbone_file(checkpoint):
        raise ValueError(f"{checkpoint} is a backbone file already; copy it, or pass --to for another tool's layout")


def convert(checkpoint: Path, output: Path | None, options: ConvertOptions) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Convert, inspect and write. Returns the report as JSON-ready values and as labelled lines."""
    if output is not None:
        check_output(checkpoint, output, options.to)
    conversion = open_backbone(
        checkpoint,
        format_name=None if options.format == "auto" else options.format,
        branch=None if options.branch == "default" else options.branch,
        num_heads=options.num_heads,
    )
    report = report_conversion(conversion, file_sha256(checkpoint))
    facts, lines = report.to_json(), report.lines()
    if options.check is not None:
        inspection = inspect(conversion, options.check)
        facts["check"] = inspection.to_json()
        lines += inspection.lines()
    if output is not None:
        note = write(conversion, checkpoint, output, options.to)
        facts |= {"output": str(output), "output_layout": options.to, "note": note}
        lines += [("written", f"{output} ({options.to})"), *([("note", note)] if note else [])]
    return facts, lines


def main(argv: Sequence[str]) -> int:
    """Parse, convert, report."""
    parser = config_parser("python tools/convert_checkpoint.py", ConvertOptions.__doc__ or "")
    parser.add_argument("checkpoint", type=Path, help=f"a backbone file, or a checkpoint in a layout of {', '.join(FORMATS)}")
    parser.add_argument("output", nargs="?", type=Path, help="the file to write; without it, only report")
    parser.add_argument("--json", nargs="?", const=STDOUT, help="a file NAME.json for the report; alone or `-`: to stdout")
    parser.add_class_arguments(ConvertOptions, skip={"json"})
    values = parser.parse_args(list(argv)).as_dict()
    checkpoint, output = values.pop("checkpoint"), values.pop("output")
    options = ConvertOptions(**values)
    facts, lines = convert(checkpoint, output, options)
    if options.json not in (None, STDOUT):
        write_text_atomically(Path(options.json), json.dumps(facts, indent=1) + "\n")
    text = json.dumps(facts) if options.json == STDOUT else "\n".join(f"{label:>21}: {value}" for label, value in lines)
    print(text)  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
