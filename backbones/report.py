"""What a conversion took, in values for machines and in words for people."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from backbones.build import build_backbone
from backbones.convert import FORMATS
from backbones.file import check_weights
from backbones.formats.base import Conversion
from backbones.spec import spec_in_words, spec_to_dict

NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What was taken from one checkpoint."""

    format: str
    """The layout's name."""
    branch: str
    """Which of its networks was taken."""
    epoch: int
    """Completed epochs as the checkpoint states them; -1 where it states none."""
    architecture: str
    """The spec in words."""
    spec: dict[str, Any]
    """`backbones.spec.spec_to_dict` of it."""
    tensors_taken: int
    """Weights and buffers of the backbone."""
    tensors_dropped_by_rule: dict[str, int]
    """How many names each rule of the layout leaves out on purpose."""
    tensors_left_over: int
    """Always 0: a tensor that is neither taken nor dropped by a rule makes the conversion fail."""
    parameters: int
    """Numbers that training changes; no running statistics."""
    checkpoint_sha256: str
    """Digest of the checkpoint file."""
    licence: str
    """Of published weights in this layout, as their authors state it; `not stated` where many authors use the layout."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Label and text, in reading order."""
        dropped = ", ".join(f"{count} by {rule}" for rule, count in self.tensors_dropped_by_rule.items())
        total = sum(self.tensors_dropped_by_rule.values())
        return [
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


def report_conversion(conversion: Conversion, checkpoint_sha256: str) -> ConversionReport:
    """Describe a conversion.

    Raises:
        BackboneFileError: If the weights do not fill the spec's network exactly.
    """
    with torch.device("meta"):
        network = build_backbone(conversion.spec)
    check_weights(network, conversion.state_dict)
    return ConversionReport(
        format=conversion.format,
        branch=conversion.branch,
        epoch=conversion.epoch,
        architecture=spec_in_words(conversion.spec),
        spec=spec_to_dict(conversion.spec),
        tensors_taken=len(conversion.state_dict),
        tensors_dropped_by_rule={rule: len(names) for rule, names in conversion.dropped.items()},
        tensors_left_over=0,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        checkpoint_sha256=checkpoint_sha256,
        licence=FORMATS[conversion.format].LICENCE if conversion.format in FORMATS else NOT_STATED,
    )
