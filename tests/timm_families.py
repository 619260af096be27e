"""Which tasks the most used families of timm pass: `python -m tests.timm_families --output DIR [--names NAME ...]`.

Of each family, the smallest model with random weights goes through every task, with tiny images, one update and one test image: this
shows that it runs from its name to a result, and measures nothing. Prints the table of docs/timm_families.md.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.cli import parse, run_command
from common.files import one_line
from tests.eval.rows import THIN_HEADS, THIN_MASK_RCNN

FAMILIES = {
    "ViT": "vit_tiny_patch16_224",
    "DeiT III": "deit3_small_patch16_224",
    "DINOv2": "vit_small_patch14_dinov2",
    "DINOv3": "vit_small_patch16_dinov3",
    "BEiT": "beit_base_patch16_224",
    "EVA-02": "eva02_tiny_patch14_224",
    "XCiT": "xcit_nano_12_p16_224",
    "CaiT": "cait_xxs24_224",
    "ResNet": "resnet18",
    "RegNet": "regnetx_002",
    "DenseNet": "densenet121",
    "EfficientNet": "efficientnet_b0",
    "MobileNetV3": "mobilenetv3_small_050",
    "MobileNetV4": "mobilenetv4_conv_small",
    "ConvNeXt": "convnext_atto",
    "ConvNeXt V2": "convnextv2_atto",
    "Swin": "swin_tiny_patch4_window7_224",
    "Swin V2": "swinv2_tiny_window8_256",
    "Hiera": "hiera_tiny_224",
    "PVT v2": "pvt_v2_b0",
    "CAFormer": "caformer_s18",
    "MaxViT": "maxvit_nano_rw_256",
    "MobileViT": "mobilevit_xxs",
}
_ONE_UPDATE: dict[str, Any] = {"iterations": 1, "batch_size": 2, "device_batch_size": 2, "max_val_images": 1}
_ONE_UPDATE |= {"draw_images": 0, "workers": 0}
_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class FamiliesConfig:
    """Run the smallest model of each of timm's most used families, with random weights, through every task on tiny images."""

    output: Path  # Folder for the sample data, the backbone files and the results.
    names: list[str] = field(default_factory=lambda: list(FAMILIES.values()))  # Models of timm.


def _options(task: str, spec: Any) -> dict[str, Any]:
    from backbones.base import input_multiple

    step = input_multiple(spec)
    match task:
        case "davis":
            return {"short_side": _SIDE, "jobs": 1, "round_up": bool(_SIDE % step)}
        case "classification":
            side = max(step, _SIDE // step * step)
            return {"classifiers": ["knn"], "neighbours": [5], "resize": side, "crop": side, "workers": 0}
        case "linear_segmentation":
            return {"iterations": 1, "batch_size": 2, "size": max(step, _SIDE), "workers": 0}
        case "retrieval_segmentation":
            return {
                "input_size": max(step, _SIDE // step * step),
                "memory_size": 40,
                "neighbours": 4,
                "pictures": 0,
                "workers": 0,
            }
        case "depth":
            return {"iterations": 1, "batch_size": 2, "crop": [48, _SIDE], "draw_images": 0, "workers": 0}
        case "segmentation":
            sides = dict.fromkeys(("crop", "train_short_side", "test_short_side"), _SIDE)
            return {**_ONE_UPDATE, **sides, "override": THIN_HEADS["fpn"]}
        case _:
            return {**_ONE_UPDATE, "short_side": _SIDE, "override": THIN_MASK_RCNN}


def outcome(task: str, name: str, spec: Any, file: Path, folder: Path) -> str:
    """What a cell of the table says: that the task gives a result, or in one line why not."""
    from eval.tasks import TASKS

    known = TASKS[task]
    paths = {"backbone": file, "data": folder / "data" / known.folder, "output": folder / "runs" / name / task}
    try:
        result = known.load("task", "evaluate")(known.config(**paths, device="cpu", **_options(task, spec)))
    except ValueError as error:
        return one_line(str(error).removeprefix(f"{file} "), 100)
    others = set(result.protocol.deviations) & {"strides", "round_up"}
    return f"yes ({', '.join(sorted(others))})" if others else "yes"


def run(config: FamiliesConfig) -> str:
    """The table, in Markdown."""
    import timm
    import torch

    from backbones.convert import convert_timm_model, write_conversion
    from eval.tasks import TASKS
    from tools.make_sample_data import SampleConfig, draw_samples

    def untrained(name: str, pretrained: bool) -> Any:
        del pretrained
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False)

    timm.is_model_pretrained = timm.is_model  # nothing is fetched
    draw_samples(SampleConfig(output=config.output / "data", train_images=2, val_images=1, frames=3, class_images=2))
    titles = {name: family for family, name in FAMILIES.items()}
    rows = [f"| family | model | network | {' | '.join(TASKS)} |", "| --- " * (3 + len(TASKS)) + "|"]
    for name in config.names:
        file = config.output / f"{name}.safetensors"
        conversion = convert_timm_model(Path(f"timm:{name}"), create=untrained)
        write_conversion(conversion, Path(f"timm:{name}"), file)
        network = "timm's own" if conversion.spec.family == "timm" else "ours"
        cells = [outcome(task, name, conversion.spec, file, config.output) for task in TASKS]
        rows.append(f"| {titles.get(name, name)} | `{name}` | {network} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str]) -> int:
    config = parse(FamiliesConfig, argv, "python -m tests.timm_families")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(run(config))
    return 0


if __name__ == "__main__":
    run_command(main)
