"""Converts any known checkpoint to a backbone file, or to another tool's layout, and reports what was taken."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.file import TIMM_PREFIX, is_timm_name
from backbones.layouts import LAYOUTS
from backbones.spec import is_function_name
from common.cli import parse, run_command

PROG = "python tools/convert_checkpoint.py"
STDOUT = "-"


@dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """What is meant of a checkpoint that does not say it itself."""

    format: str = "auto"
    """The checkpoint's layout; `auto` finds it from the keys. `timm:NAME`: the weights of that model of timm, under any wrapper."""
    branch: str = "default"
    """Which of its networks to take; `default` is the one behind the published numbers."""
    num_heads: int | None = None
    """Attention heads per block, which the weights do not show; the default is what the layout says, or the published number for the
    width, or one per 64 channels."""
    key: str = ""
    """The entry of the checkpoint to take, such as `model.ema`: the keys of nested dictionaries, joined by dots."""
    prefix: str = ""
    """Take the tensors whose names begin so, such as `module.encoder.`, without this beginning, and drop all others."""
    map: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Replace a part of the tensors' names, as OLD=NEW; may be given several times."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(SelectionOptions):
    """Convert any known checkpoint to a backbone file, or to another tool's layout, and report what was taken."""

    checkpoint: tyro.conf.Positional[Path]
    """A backbone file, a model `timm:NAME`, or a checkpoint in one of the layouts above."""
    output: tyro.conf.Positional[Path | None] = None
    """The file to write; without it, the command only reports."""
    to: Literal["backbone", "timm", "dino", "selfpatch"] = "backbone"
    """Write a backbone file, or a checkpoint for other tools (.safetensors, .pth or .pt)."""
    check: Path | None = None
    """An image to run through the backbone: print statistics of its features, and warn if the network looks untrained."""
    json: str | None = None
    """Write the report to this file, NAME.json; `--json` alone or `-` prints it in place of the text."""

    def __post_init__(self) -> None:
        # `--json CKPT OUT` would otherwise overwrite the checkpoint.
        if self.json not in (None, STDOUT) and Path(str(self.json)).suffix != ".json":
            raise ValueError(f"--json {self.json}: the report's name must end in .json; `--json` alone, put last, prints it")


def check_source(checkpoint: Path, layout: str) -> None:
    """ValueError for a file that is not there or an unknown layout, without the seconds that it takes to load torch."""
    if not is_timm_name(checkpoint) and not is_function_name(checkpoint) and not checkpoint.exists():
        raise ValueError(f"{checkpoint}: no such checkpoint file (looked for {checkpoint.absolute()})")
    if layout not in ("auto", *LAYOUTS) and not layout.startswith(TIMM_PREFIX):
        raise ValueError(f"--format: unknown layout {layout!r}; known: auto, {TIMM_PREFIX}NAME, {', '.join(LAYOUTS)}")


def main(argv: Sequence[str]) -> int:
    description = f"{ConvertOptions.__doc__} Layouts: {', '.join(LAYOUTS)}."
    options = parse(ConvertOptions, _with_json_value(argv), PROG, description)
    check_source(options.checkpoint, options.format)
    from backbones.convert import selection_of  # loads torch; --help need not wait for it
    from backbones.report import convert_file, report_lines
    from common.files import write_text_atomically

    facts = convert_file(options.checkpoint, options.output, options.to, selection_of(options), options.check)
    if options.json == STDOUT:
        print(json.dumps(facts))  # noqa: T201 - the command's own output
        return 0
    if options.json is not None:
        write_text_atomically(Path(options.json), json.dumps(facts, indent=1) + "\n")
    for label, text in report_lines(facts):
        print(f"{label:>21}: {text}")  # noqa: T201
    return 0


def _with_json_value(argv: Sequence[str]) -> list[str]:
    """`--json` without a value -> `--json -`."""
    arguments = []
    for argument, following in zip(argv, [*argv, "--"][1:], strict=True):
        arguments += [argument, STDOUT] if argument == "--json" and following.startswith("--") else [argument]
    return arguments


if __name__ == "__main__":
    run_command(main)
