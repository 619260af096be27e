"""From a file to a file: open, say what was taken and whether it looks trained, write.

The warnings rest on our measurements (ViT-Ti/16, ViT-S/16 with and without CLS token, Swin-T and ResNet-50 with fresh weights; ViTs
after 12 and 36 SelfPatch updates; natural images; no fully trained published weights):

- Every normalisation layer of a fresh network has exactly weight 1 (or 0, where a residual branch starts closed) and bias 0; after
  a few updates not one has. This is the surest sign, and it shows a part that was never loaded, too.
- In fresh ViTs and after so few updates the last block's attention is uniform: its entropy is 0.996 to 1.000 of the highest possible.
- Mean, deviation, norm, rank and similarity do not tell fresh networks from briefly trained ones: between two images the
  similarity of a fresh ViT's patches went from 0.06 to 0.39, and a Swin's from 0.18 to 0.51. They are printed without a warning,
  except for features that do not depend on the position at all.

Shapes: N patches, D channels, T tokens of the last block, h heads.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from timm.layers import Attention
from torch import Tensor, nn
from torchvision.transforms.functional import normalize, to_tensor

from backbones.build import AnyBackbone, network_of
from backbones.convert import UNCHOSEN, Selection, open_backbone, source_sha256, write_conversion
from backbones.export import check_export, export_backbone
from backbones.file import check_fills, is_backbone_file
from backbones.layouts import LAYOUTS, Conversion
from backbones.layouts.base import NOT_STATED
from backbones.spec import STANDARD_HEAD_DIM, spec_in_words, spec_to_dict, typical_image_size
from backbones.vit import ViT
from common.files import one_line
from common.images import IMAGENET_MEAN, IMAGENET_STD

Target = Literal["backbone", "timm", "dino", "selfpatch"]
"""What is written: a backbone file, or one of `backbones.export.LAYOUTS`."""
UNIFORM_ATTENTION = 0.99  # entropy of the attention over the highest possible, from which on it counts as uniform
_LONGEST_RULE = 100
CONSTANT_FEATURES = 0.999  # mean cosine similarity of the patches, from which on they count as all the same


def convert_file(
    source: Path,
    output: Path | None,
    target: Target = "backbone",
    chosen: Selection = UNCHOSEN,
    image: Path | None = None,
) -> dict[str, Any]:
    """Take the backbone of whatever `open_backbone` reads, and write it as `target`, or only look where `output` is None.

    ValueError, and nothing is written, if the source holds no backbone or does not fit the options, the output cannot hold it, or the
    image is unreadable. Returns the values of `report_conversion`; what the image showed as `check`; `output` and `output_layout` if
    anything was written; and as `note` what a reader of the output must know beside it.
    """
    if output is not None:
        _check_output(source, output, target)
    conversion = open_backbone(source, chosen)
    report = report_conversion(conversion, source_sha256(source, conversion))
    report |= {"check": None, "output": None, "output_layout": None, "note": ""}
    if image is not None:
        report["check"] = inspect_backbone(network_of(conversion.spec, conversion.state_dict), image)
    if output is not None:
        report |= {"output": str(output), "output_layout": target}
        if target == "backbone":
            write_conversion(conversion, source, output)
        else:
            report["note"] = export_backbone(output, target, conversion.spec, conversion.state_dict, conversion.source.epoch)
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


def report_conversion(conversion: Conversion, checkpoint_sha256: str) -> dict[str, Any]:
    """What a conversion took, as JSON-ready values."""
    network, source = check_fills(conversion.spec, conversion.state_dict), conversion.source
    return {
        "format": source.format,
        "branch": source.branch,
        "branch_reason": conversion.branch_reason,
        "epoch": source.epoch,
        "architecture": spec_in_words(conversion.spec),
        "spec": spec_to_dict(conversion.spec),
        "heads_assumed": conversion.heads_assumed,
        "tensors_taken": len(conversion.state_dict),
        "tensors_dropped_by_rule": {rule: len(names) for rule, names in conversion.dropped.items()},
        "tensors_left_over": 0,  # a tensor that is neither taken nor dropped by a rule makes the conversion fail
        "parameters": sum(parameter.numel() for parameter in network.parameters()),  # without running statistics
        "checkpoint_sha256": checkpoint_sha256,
        "licence": LAYOUTS[source.format].licence if source.format in LAYOUTS else NOT_STATED,
    }


def report_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and text of everything in a report, in reading order."""
    dropped = report["tensors_dropped_by_rule"]
    rules = ", ".join(f"{count} by {one_line(rule, _LONGEST_RULE)}" for rule, count in dropped.items())
    reason = f" ({report['branch_reason']})" if report["branch_reason"] else ""
    lines = [
        ("format", report["format"]),
        ("branch", f"{report['branch']}{reason}"),
        ("epoch", str(report["epoch"]) if report["epoch"] >= 0 else NOT_STATED),
        ("architecture", report["architecture"]),
        ("parameters", f"{report['parameters']:,}"),
        ("tensors taken", str(report["tensors_taken"])),
        ("dropped on purpose", f"{sum(dropped.values())}: {rules}" if dropped else "0"),
        ("left over", str(report["tensors_left_over"])),
        ("published licence", report["licence"]),
        ("sha256 of checkpoint", report["checkpoint_sha256"]),
    ]
    if report["heads_assumed"]:
        assumed = f"{report['spec']['num_heads']} assumed, one per {STANDARD_HEAD_DIM} channels"
        lines.insert(4, ("attention heads", f"{assumed}; the weights do not show them, and --num-heads decides"))
    if check := report.get("check"):
        similarity, entropy = check["cosine_similarity"], check["attention_entropy"]
        measured = f"mean {check['mean']:.4f}, deviation {check['deviation']:.4f}, length {check['norm']:.3f}"
        lines.append(("features", f"{measured} ({check['image_size']} px)"))
        lines.append(("effective rank", f"{check['effective_rank']:.1f} of {check['highest_rank']}"))
        lines.append(("similarity of patches", f"{math.nan if similarity is None else similarity:.3f} (mean cosine)"))
        if entropy is not None:
            lines.append(("attention entropy", f"{entropy:.3f} of the highest possible, last block"))
        lines.append(("norms as initialised", f"{check['norm_layers_as_initialised']} of {check['norm_layers']}"))
        lines += [("warning", text) for text in check["warnings"]]
    if report.get("output"):
        layout = report["output_layout"]
        lines.append(("written", f"{report['output']} ({'backbone file' if layout == 'backbone' else f'{layout} layout'})"))
    if report.get("note"):
        lines.append(("note", report["note"]))
    return lines


def inspect_backbone(network: AnyBackbone, image: Path) -> dict[str, Any]:
    """Run the centre square of an image, scaled to the size of pretraining, through a backbone on the CPU, in evaluation mode.

    Returns JSON-ready values of the patches' features. `effective_rank` is the exponential of the entropy of the normalised singular
    values of the centred features (Roy and Vetterli, 2007); `cosine_similarity` the mean over all pairs of different patches, None
    where there is one patch or a feature vector is zero; `attention_entropy` that of the last block over the highest possible, None
    for networks without plain global attention. ValueError if the file is not a readable image.
    """
    size = typical_image_size(network.spec)
    images_13SS = _read_image(image, size)
    features_ND, attention_entropy = _features_and_entropy(network.eval(), images_13SS)
    singular = torch.linalg.svdvals(features_ND - features_ND.mean(0))
    directions_ND = F.normalize(features_ND, dim=1)
    count = len(features_ND)
    similarity = (directions_ND @ directions_ND.T).sum() - (directions_ND**2).sum()
    has_directions = count > 1 and bool((features_ND.norm(dim=1) > 0).all())
    norms = [module for module in network.modules() if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d))]
    values = {
        "image_size": size,
        "mean": features_ND.mean().item(),
        "deviation": features_ND.std().item(),
        "norm": features_ND.norm(dim=1).mean().item(),
        "effective_rank": math.exp(_entropy(singular / singular.sum().clamp_min(1e-300)).item()),
        "highest_rank": min(count - 1, features_ND.shape[1]),
        "cosine_similarity": similarity.item() / (count * (count - 1)) if has_directions else None,
        "attention_entropy": attention_entropy,
        "norm_layers": len(norms),
        "norm_layers_as_initialised": sum(_is_as_initialised(norm) for norm in norms),
    }
    values = {name: None if value != value else value for name, value in values.items()}  # NaN of a single patch's deviation
    return {**values, "warnings": _warnings(values)}


def _warnings(values: dict[str, Any]) -> list[str]:
    found = []
    if untouched := values["norm_layers_as_initialised"]:
        layers = f"{untouched} of {values['norm_layers']} normalisation layers hold exactly their initial values"
        found.append(f"{layers}, as in an untrained network: was this part of the weights ever trained and loaded?")
    entropy, similarity = values["attention_entropy"], values["cosine_similarity"]
    if entropy is not None and entropy >= UNIFORM_ATTENTION:
        uniform = f"the last block attends uniformly (entropy {entropy:.3f} of the highest possible)"
        found.append(f"{uniform}, as in an untrained network: hardly trained, or weights in the wrong place")
    if similarity is None or similarity >= CONSTANT_FEATURES:
        found.append("the features are the same at every position: collapsed, or weights in the wrong place")
    return found


def _read_image(path: Path, size: int) -> Tensor:
    """The centre square as a normalised [1, 3, size, size]."""
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error
    side = min(pixels.size)
    left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
    square = pixels.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return normalize(to_tensor(square), IMAGENET_MEAN, IMAGENET_STD)[None]


@torch.no_grad()
def _features_and_entropy(network: AnyBackbone, images_13SS: Tensor) -> tuple[Tensor, float | None]:
    """Patch features [N, D] in float64, and the relative entropy of the last block's attention where it is plain."""
    attention = network.blocks[-1].attn if isinstance(network, ViT) else None
    if not isinstance(attention, Attention):
        return network.forward_tokens(images_13SS).patches[0].double(), None
    inputs: list[Tensor] = []
    with attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0])):
        features_ND = network.forward_tokens(images_13SS).patches[0].double()
    (tokens_1TD,) = inputs
    qkv_3hTd = attention.qkv(tokens_1TD)[0].unflatten(1, (3, attention.num_heads, -1)).permute(1, 2, 0, 3)
    queries_hTd, keys_hTd = attention.q_norm(qkv_3hTd[0]), attention.k_norm(qkv_3hTd[1])
    weights_hTT = (queries_hTd @ keys_hTd.transpose(1, 2) * attention.scale).softmax(-1)
    return features_ND, _entropy(weights_hTT).mean().item() / math.log(weights_hTT.shape[-1])


def _entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy in nats over the last axis."""
    return torch.special.entr(probabilities).sum(-1)


def _is_as_initialised(norm: nn.LayerNorm | nn.BatchNorm2d) -> bool:
    """Whether weights are all 1 or all 0 and biases all 0, exactly."""
    return not norm.bias.any() and bool((norm.weight == 1).all() or not norm.weight.any())
