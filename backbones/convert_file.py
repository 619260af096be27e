"""From a file to a file: open, describe, look at an image, write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backbones.build import build_backbone
from backbones.convert import source_sha256, write_conversion
from backbones.export import check_export, export_backbone
from backbones.file import is_backbone_file, load_strictly
from backbones.inspection import Inspection, inspect_backbone
from backbones.opening import open_backbone
from backbones.report import ConversionReport, report_conversion

Target = Literal["backbone", "timm", "dino", "selfpatch"]
"""What is written: a backbone file, or one of `backbones.export.LAYOUTS`."""


@dataclass(frozen=True, kw_only=True)
class ConvertedFile:
    """What became of a file."""

    report: ConversionReport
    """What was taken from it."""
    inspection: Inspection | None
    """What an image showed, where one was given."""
    output: Path | None
    """What was written, if anything."""
    target: Target
    """As what."""
    note: str
    """What a reader of the output must know beside it; empty if nothing."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            **self.report.to_json(),
            "check": self.inspection.to_json() if self.inspection else None,
            "output": str(self.output) if self.output else None,
            "output_layout": self.target if self.output else None,
            "note": self.note,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Label and text, in reading order."""
        lines = self.report.lines() + (self.inspection.lines() if self.inspection else [])
        if self.output:
            lines.append(
                ("written", f"{self.output} ({'backbone file' if self.target == 'backbone' else self.target + ' layout'})")
            )
        return [*lines, ("note", self.note)] if self.note else lines


def convert_file(
    source: Path,
    output: Path | None,
    target: Target = "backbone",
    format_name: str | None = None,
    branch: str | None = None,
    num_heads: int | None = None,
    image: Path | None = None,
) -> ConvertedFile:
    """Convert a checkpoint or a backbone file.

    Args:
        source: The file, or `timm:NAME` for a pretrained model of timm.
        output: What to write; None to only look.
        target: As what.
        format_name: Layout of the checkpoint; None to find it from the keys.
        branch: Which of its networks; None for the layout's default.
        num_heads: Attention heads per block; None for what the layout or the convention of 64 channels says.
        image: To run through the backbone.

    Raises:
        ValueError: If the source holds no backbone or does not fit the options, the output cannot hold it, or the image
            is unreadable; nothing is written then.
    """
    if output is not None:
        _check_output(source, output, target)
    conversion = open_backbone(source, format_name=format_name, branch=branch, num_heads=num_heads)
    report = report_conversion(conversion, source_sha256(source, conversion))
    inspection = None
    if image is not None:
        network = build_backbone(conversion.spec)
        load_strictly(network, conversion.state_dict)
        inspection = inspect_backbone(network, image)
    note = ""
    if output is not None and target == "backbone":
        write_conversion(conversion, source, output)
    elif output is not None:
        note = export_backbone(output, target, conversion.spec, conversion.state_dict, conversion.epoch)
    return ConvertedFile(report=report, inspection=inspection, output=output, target=target, note=note)


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
