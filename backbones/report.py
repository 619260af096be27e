"""From a file to a file: open, describe what was taken, look at an image, write."""

import math
from pathlib import Path
from typing import Any, Literal

from backbones.build import build_backbone
from backbones.convert import open_backbone, source_sha256, write_conversion
from backbones.export import check_export, export_backbone
from backbones.file import check_fills, is_backbone_file, load_strictly
from backbones.inspection import inspect_backbone
from backbones.layouts import FORMATS, Conversion
from backbones.layouts.base import NOT_STATED
from backbones.spec import spec_in_words, spec_to_dict

Target = Literal["backbone", "timm", "dino", "selfpatch"]
"""What is written: a backbone file, or one of `backbones.export.LAYOUTS`."""


def report_conversion(conversion: Conversion, checkpoint_sha256: str) -> dict[str, Any]:
    """What a conversion took, as JSON-ready values.

    Raises:
        BackboneFileError: If the weights do not fill the spec's network exactly.
    """
    network = check_fills(conversion.spec, conversion.state_dict)
    return {
        "format": conversion.format,
        "branch": conversion.branch,
        "epoch": conversion.epoch,
        "architecture": spec_in_words(conversion.spec),
        "spec": spec_to_dict(conversion.spec),
        "tensors_taken": len(conversion.state_dict),
        "tensors_dropped_by_rule": {rule: len(names) for rule, names in conversion.dropped.items()},
        "tensors_left_over": 0,  # a tensor that is neither taken nor dropped by a rule makes the conversion fail
        "parameters": sum(parameter.numel() for parameter in network.parameters()),  # without running statistics
        "checkpoint_sha256": checkpoint_sha256,
        "licence": FORMATS[conversion.format].licence if conversion.format in FORMATS else NOT_STATED,
    }


def report_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and text of everything in a report, in reading order."""
    dropped = report["tensors_dropped_by_rule"]
    total = sum(dropped.values())
    rules = ", ".join(f"{count} by {rule}" for rule, count in dropped.items())
    lines = [
        ("format", report["format"]),
        ("branch", report["branch"]),
        ("epoch", str(report["epoch"]) if report["epoch"] >= 0 else NOT_STATED),
        ("architecture", report["architecture"]),
        ("parameters", f"{report['parameters']:,}"),
        ("tensors taken", str(report["tensors_taken"])),
        ("dropped on purpose", f"{total}: {rules}" if total else "0"),
        ("left over", str(report["tensors_left_over"])),
        ("published licence", report["licence"]),
        ("sha256 of checkpoint", report["checkpoint_sha256"]),
    ]
    if check := report.get("check"):
        lines += _check_lines(check)
    if report.get("output"):
        target = report["output_layout"]
        lines.append(("written", f"{report['output']} ({'backbone file' if target == 'backbone' else f'{target} layout'})"))
    return [*lines, ("note", report["note"])] if report.get("note") else lines


def _check_lines(check: dict[str, Any]) -> list[tuple[str, str]]:
    similarity = check["cosine_similarity"]
    lines = [
        (
            "features",
            f"mean {check['mean']:.4f}, deviation {check['deviation']:.4f}, length {check['norm']:.3f} ({check['image_size']} px)",
        ),
        ("effective rank", f"{check['effective_rank']:.1f} of {check['highest_rank']}"),
        ("similarity of patches", f"{math.nan if similarity is None else similarity:.3f} (mean cosine)"),
    ]
    if check["attention_entropy"] is not None:
        lines.append(("attention entropy", f"{check['attention_entropy']:.3f} of the highest possible, last block"))
    lines.append(("norms as initialised", f"{check['norm_layers_as_initialised']} of {check['norm_layers']}"))
    return lines + [("warning", text) for text in check["warnings"]]


def convert_file(
    source: Path,
    output: Path | None,
    target: Target = "backbone",
    format_name: str | None = None,
    branch: str | None = None,
    num_heads: int | None = None,
    image: Path | None = None,
) -> dict[str, Any]:
    """Convert a checkpoint or a backbone file.

    Args:
        source: The file, or `timm:NAME` for a pretrained model of timm.
        output: What to write; None to only look.
        target: What the output becomes.
        format_name: As for `open_backbone`.
        branch: As for `open_backbone`.
        num_heads: As for `open_backbone`.
        image: An image to run through the backbone.

    Returns:
        The values of `report_conversion`; what an image showed as `check`; `output` and `output_layout` if anything was written; and
        as `note` what a reader of the output must know beside it.

    Raises:
        ValueError: If the source holds no backbone or does not fit the options, the output cannot hold it, or the image
            is unreadable; nothing is written then.
    """
    if output is not None:
        _check_output(source, output, target)
    conversion = open_backbone(source, format_name, branch, num_heads)
    report = report_conversion(conversion, source_sha256(source, conversion))
    report |= {"check": None, "output": None, "output_layout": None, "note": ""}
    if image is not None:
        network = build_backbone(conversion.spec)
        load_strictly(network, conversion.state_dict)
        report["check"] = inspect_backbone(network, image)
    if output is not None:
        report |= {"output": str(output), "output_layout": target}
        if target == "backbone":
            write_conversion(conversion, source, output)
        else:
            report["note"] = export_backbone(output, target, conversion.spec, conversion.state_dict, conversion.epoch)
    return report


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
