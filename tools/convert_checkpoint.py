"""Convert any known checkpoint to a backbone file, and report what was taken."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.convert import FORMATS, convert_checkpoint, write_conversion
from backbones.formats.base import Conversion
from backbones.spec import spec_to_dict
from common.command import config_parser, run_command


@dataclass(kw_only=True)
class ConvertOptions:
    """Convert any known checkpoint to a backbone file, and report what was taken."""

    format: str = "auto"
    """The checkpoint's layout; `auto` finds it from the keys."""
    branch: str = "default"
    """Which of its networks to take; `default` is the one behind the published numbers."""
    num_heads: int | None = None
    """Attention heads per block, which the weights do not show; by default what the layout or 64 channels per head say."""


def report(conversion: Conversion, output: Path, sha256: str) -> dict[str, object]:
    """What was taken, as JSON-ready values."""
    return {
        "output": str(output),
        "format": conversion.format,
        "branch": conversion.branch,
        "epoch": conversion.epoch,
        "spec": spec_to_dict(conversion.spec),
        "tensors_taken": len(conversion.state_dict),
        "tensors_dropped_by_rule": {rule: len(names) for rule, names in conversion.dropped.items()},
        "tensors_left_over": 0,
        "parameters": sum(tensor.numel() for tensor in conversion.state_dict.values()),
        "checkpoint_sha256": sha256,
    }


def main(argv: Sequence[str]) -> int:
    """Parse, convert, write, report."""
    parser = config_parser("python tools/convert_checkpoint.py", ConvertOptions.__doc__ or "")
    parser.add_argument("checkpoint", type=Path, help=f"the checkpoint, in one of the layouts {', '.join(FORMATS)}")
    parser.add_argument("output", type=Path, help="the backbone file to write, NAME.safetensors")
    parser.add_class_arguments(ConvertOptions)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(list(argv))
    if options.output.suffix != ".safetensors":
        raise ValueError(f"the output {options.output} must end in .safetensors")
    conversion = convert_checkpoint(
        options.checkpoint,
        format_name=None if options.format == "auto" else options.format,
        branch=None if options.branch == "default" else options.branch,
        num_heads=options.num_heads,
    )
    source = write_conversion(conversion, options.checkpoint, options.output)
    facts = report(conversion, options.output, source.sha256)
    if options.json:
        print(json.dumps(facts))  # noqa: T201 - the command's own output
        return 0
    for name, value in facts.items():
        print(f"{name:>24}: {value}")  # noqa: T201
    return 0


if __name__ == "__main__":
    run_command(main)
