"""From a file to a file: open, describe what was taken, look at an image, write."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from backbones.build import build_backbone
from backbones.convert import open_backbone, source_sha256, write_conversion
from backbones.export import check_export, export_backbone
from backbones.file import check_fills, is_backbone_file, load_strictly
from backbones.inspection import Inspection, inspect_backbone
from backbones.layouts import FORMATS, Conversion
from backbones.layouts.base import NOT_STATED
from backbones.spec import spec_in_words, spec_to_dict

Target = Literal["backbone", "timm", "dino", "selfpatch"]
"""What is written: a backbone file, or one of `backbones.export.LAYOUTS`."""


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What was taken from one checkpoint, and what became of it."""

    format: str
    branch: str
    epoch: int
    """Completed epochs as the checkpoint states them; -1 where it states none."""
    architecture: str
    """The spec in words."""
    spec: dict[str, Any]
    tensors_taken: int
    """Weights and buffers of the backbone."""
    tensors_dropped_by_rule: dict[str, int]
    """How many names each rule of the layout leaves out on purpose."""
    tensors_left_over: int = 0
    """Always 0: a tensor that is neither taken nor dropped by a rule makes the conversion fail."""
    parameters: int
    """Numbers that training changes; no running statistics."""
    checkpoint_sha256: str
    licence: str
    """Of published weights in this layout, as their authors state it; `not stated` where many authors use the layout."""
    check: Inspection | None = None
    """What an image showed, where one was given."""
    output: str | None = None
    """The file that was written, if any."""
    output_layout: Target | None = None
    note: str = ""
    """What a reader of the output must know beside it; empty if nothing."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "check": self.check.to_json() if self.check else None}

    def lines(self) -> list[tuple[str, str]]:
        """Label and text, in reading order."""
        dropped = ", ".join(f"{count} by {rule}" for rule, count in self.tensors_dropped_by_rule.items())
        total = sum(self.tensors_dropped_by_rule.values())
        lines = [
            ("format", self.format),
            ("branch", self.branch),
            ("epoch", str(self.epoch) if self.epoch >= 0 else NOT_STATED),
            ("architecture", self.architecture),
            ("parameters", f"{self.parameters:,}"),
            ("tensors taken", str(self.tensors_taken)),
            ("dropped on purpose", f"{total}: {dropped}" if total else "0"),
            ("left over", str(self.tensors_left_over)),
            ("published licence", self.licence),
            ("sha256 of checkpoint", self.checkpoint_sha256),
        ]
        if self.check:
            lines += self.check.lines()
        if self.output:
            written = "backbone file" if self.output_layout == "backbone" else f"{self.output_layout} layout"
            lines.append(("written", f"{self.output} ({written})"))
        return [*lines, ("note", self.note)] if self.note else lines


def report_conversion(conversion: Conversion, checkpoint_sha256: str) -> ConversionReport:
    """Describe a conversion.

    Raises:
        BackboneFileError: If the weights do not fill the spec's network exactly.
    """
    network = check_fills(conversion.spec, conversion.state_dict)
    return ConversionReport(
        format=conversion.format,
        branch=conversion.branch,
        epoch=conversion.epoch,
        architecture=spec_in_words(conversion.spec),
        spec=spec_to_dict(conversion.spec),
        tensors_taken=len(conversion.state_dict),
        tensors_dropped_by_rule={rule: len(names) for rule, names in conversion.dropped.items()},
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        checkpoint_sha256=checkpoint_sha256,
        licence=FORMATS[conversion.format].licence if conversion.format in FORMATS else NOT_STATED,
    )


def convert_file(
    source: Path,
    output: Path | None,
    target: Target = "backbone",
    format_name: str | None = None,
    branch: str | None = None,
    num_heads: int | None = None,
    image: Path | None = None,
) -> ConversionReport:
    """Convert a checkpoint or a backbone file.

    Args:
        source: The file, or `timm:NAME` for a pretrained model of timm.
        output: What to write; None to only look.
        target: What the output becomes.
        format_name: As for `open_backbone`.
        branch: As for `open_backbone`.
        num_heads: As for `open_backbone`.
        image: An image to run through the backbone.

    Raises:
        ValueError: If the source holds no backbone or does not fit the options, the output cannot hold it, or the image
            is unreadable; nothing is written then.
    """
    if output is not None:
        _check_output(source, output, target)
    conversion = open_backbone(source, format_name, branch, num_heads)
    report = report_conversion(conversion, source_sha256(source, conversion))
    if image is not None:
        network = build_backbone(conversion.spec)
        load_strictly(network, conversion.state_dict)
        report = replace(report, check=inspect_backbone(network, image))
    if output is None:
        return report
    note = ""
    if target == "backbone":
        write_conversion(conversion, source, output)
    else:
        note = export_backbone(output, target, conversion.spec, conversion.state_dict, conversion.epoch)
    return replace(report, output=str(output), output_layout=target, note=note)


def _check_output(source: Path, output: Path, target: Target) -> None:
    """Raise ValueError before anything is read if the output cannot become what is wanted."""
    if output.resolve() == source.resolve():
        raise ValueError(f"the output {output} is the checkpoint itself, which would be overwritten; choose another name")
    if target != "backbone":
        check_export(output, target)
    elif output.suffix != ".safetensors":
        raise ValueError(f"the output {output} must end in .safetensors; for other tools' layouts pass --to")
    elif is_backbone_file(source):
        raise ValueError(f"{source} is a backbone file already; copy it, or pass --to for another tool's layout")
