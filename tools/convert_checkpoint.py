"""Convert any known checkpoint to a backbone file, or to another tool's layout, and report what was taken."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.layouts import FORMATS
from backbones.report import Target, convert_file
from common.command import config_parser, run_command
from common.files import write_text_atomically

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
    to: Target = "backbone"
    """What OUTPUT becomes: a backbone file, or a checkpoint for other tools (.safetensors, .pth or .pt)."""
    check: Path | None = None
    """An image to run through the backbone: prints feature statistics and warns of signs of an untrained network."""
    json: str | None = None
    """A file NAME.json for the report; alone or `-`: to stdout instead of the text."""

    def __post_init__(self) -> None:
        """Reject what is no report's name: `--json CKPT OUT` would otherwise overwrite the checkpoint."""
        if self.json not in (None, STDOUT) and Path(str(self.json)).suffix != ".json":
            raise ValueError(f"--json {self.json}: the report's name must end in .json; `--json` alone, put last, prints it")


def main(argv: Sequence[str]) -> int:
    """Parse, convert, report."""
    parser = config_parser("python tools/convert_checkpoint.py", ConvertOptions.__doc__ or "")
    parser.add_argument(
        "checkpoint",
        type=Path,
        help=f"a backbone file, a model `timm:NAME`, or a checkpoint in one of the layouts {', '.join(FORMATS)}",
    )
    parser.add_argument("output", nargs="?", type=Path, help="the file to write; without it, only report")
    parser.add_argument("--json", nargs="?", const=STDOUT, help="a file NAME.json for the report; alone or `-`: to stdout")
    parser.add_class_arguments(ConvertOptions, as_group=False, skip={"json"})
    values = parser.parse_args(list(argv)).as_dict()
    checkpoint, output = values.pop("checkpoint"), values.pop("output")
    options = ConvertOptions(**values)
    converted = convert_file(
        checkpoint,
        output,
        target=options.to,
        format_name=None if options.format == "auto" else options.format,
        branch=None if options.branch == "default" else options.branch,
        num_heads=options.num_heads,
        image=options.check,
    )
    facts = converted.to_json()
    if options.json == STDOUT:
        print(json.dumps(facts))  # noqa: T201 - the command's own output
        return 0
    if options.json is not None:
        write_text_atomically(Path(options.json), json.dumps(facts, indent=1) + "\n")
    for label, text in converted.lines():
        print(f"{label:>21}: {text}")  # noqa: T201
    return 0


if __name__ == "__main__":
    run_command(main)
