"""Batches, taps, precision and overrides: what options make of a config."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from eval.openmmlab.backbone import choose_taps
from eval.openmmlab.config import apply_override, finish_config
from eval.openmmlab.finetune import complete_config
from eval.openmmlab.options import BatchPlan, FineTuningConfig, Precision
from tests.eval.rows import ROWS, VIT_SMALL


def options(**changes: Any) -> FineTuningConfig:
    return FineTuningConfig(backbone=Path("b"), data=Path("d"), output=Path("o"), **changes)


def test_image_limits() -> None:
    given: list[dict[str, Any]] = [{}, {"max_images": 3}, {"max_images": 3, "max_val_images": 5}]
    assert [options(**limits).image_limits for limits in given] == [(None, None), (3, 3), (3, 5)]
    with pytest.raises(ValueError, match="max_images=0 must be at least 1"):
        options(max_images=0)


def test_accumulation_makes_up_the_total_or_the_split_is_refused() -> None:
    splits = {(1, 1): 8, (8, 1): 1, (1, 8): 1, (2, 2): 2}
    assert {split: BatchPlan(total=8, per_device=split[0], world_size=split[1]).accumulation for split in splits} == splits
    with pytest.raises(ValueError, match="8 images cannot be split into 3 process"):
        BatchPlan(total=8, per_device=1, world_size=3)


def test_published_taps_keep_their_place_in_the_depth_and_chosen_ones_are_checked() -> None:
    vits = {depth: replace(VIT_SMALL, depth=depth) for depth in (2, 4, 12, 24)}
    published = {12: [2, 5, 8, 11], 24: [5, 11, 17, 23], 4: [0, 1, 2, 3]}
    assert {depth: choose_taps(None, (2, 5, 8, 11), vits[depth]) for depth in published} == published
    assert choose_taps(None, (3, 5, 7, 11), vits[24]) == [7, 11, 15, 23]
    assert choose_taps([0, 1, 2, 9], (2, 5, 8, 11), vits[12]) == [0, 1, 2, 9]
    assert choose_taps(None, (0, 1, 2, 3), ROWS["Swin-T"]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="choose 4 others with --taps"):
        choose_taps([0, 1, 2, 12], (2, 5, 8, 11), vits[12])
    with pytest.raises(ValueError, match="2 blocks or stages, fewer than the 4 maps"):
        choose_taps(None, (2, 5, 8, 11), vits[2])


@pytest.mark.parametrize(
    ("precision", "wrapper"),
    [
        ("float32", {"type": "OptimWrapper"}),
        ("bfloat16", {"type": "AmpOptimWrapper", "dtype": "bfloat16", "loss_scale": {"enabled": False}}),
        ("float16", {"type": "AmpOptimWrapper", "dtype": "float16", "loss_scale": "dynamic"}),
    ],
)
def test_half_precision_needs_a_gpu_and_only_float16_scales_its_loss(precision: Precision, wrapper: dict[str, Any]) -> None:
    def finished(precision: Precision, device: str) -> dict[str, Any]:
        config = Config({"train_dataloader": {}, "optim_wrapper": {"clip_grad": None}, "batch": {}})
        plan = BatchPlan(total=4, per_device=2, world_size=1)
        finish_config(config, options(precision=precision), plan, torch.device(device))
        return dict(config.optim_wrapper.to_dict())

    always = {"clip_grad": None, "accumulative_counts": 2}
    assert finished(precision, "cuda") == {**always, **wrapper}
    assert finished("auto", "cpu") == {**always, "type": "OptimWrapper"}
    if precision != "float32":
        with pytest.raises(ValueError, match=f"{precision} needs a GPU"):
            finished(precision, "cpu")


@pytest.mark.parametrize(
    ("optimiser", "device", "fused"),
    [
        ({"type": "AdamW"}, "cpu", True),
        ({"type": "AdamW", "fused": False}, "cpu", False),
        ({"type": "LBFGS"}, "cpu", None),
        ({"type": "AdamW"}, "cuda", None),
    ],
)
def test_updates_on_a_cpu_are_fused(optimiser: dict[str, Any], device: str, fused: bool | None) -> None:
    loader = {"num_workers": 0, "sampler": {}, "dataset": {}}
    config = Config({"optim_wrapper": {"optimizer": optimiser}, "train_dataloader": loader, "test_dataloader": loader})
    assert complete_config(config, options(), torch.device(device)).optim_wrapper.optimizer.get("fused") is fused


def test_override_replaces_what_is_there_in_the_types_that_mmcv_insists_on() -> None:
    # YAML 1.1 reads 1e-3 as a string, which crashed the scheduler minutes later.
    before = {"rate": 0.1, "strides": [4, 8], "name": "x", "part": 0.5, "count": 1}
    before |= {"scales": [(1333, 480), (1333, 800)], "size": (1, 2)}
    config = Config({"model": before})
    for override in ("rate=1e-3", "strides.0=16", "name=null", "scales=[[427, 256]]", "size=[3, 4]", "part=0", "count=2"):
        apply_override(config, f"model.{override}")
    wanted = {"rate": 1e-3, "strides": [16, 8], "name": None, "scales": [(427, 256)], "size": (3, 4), "part": 0.0, "count": 2}
    assert config.model.to_dict() == wanted
    assert (type(config.model.part), type(config.model.count)) == (float, int)


@pytest.mark.parametrize(
    ("message", "overrides"),
    [
        (r"would change nothing: only values under model\., optim_wrapper\.", ["batch.total=8", "load_from=/x.pth"]),
        ("would change nothing", ["schedule.warmup_iterations=500", "half_precision=false", "train_dataloader.batch_size=1"]),
        ("would change nothing", ["optim_wrapper.accumulative_counts=2", "default_hooks.checkpoint.interval=1"]),
        ("wanted key=value", ["model.absent=1", "model.strides.more=1", "model.name.more=1", "model.name", "model.name=["]),
        ("wanted key=value", ["model.size.0=3", "model.strides.2=1"]),
        ("is a number", ["model.strides.0=fast"]),
    ],
)
def test_overrides_without_effect_of_nothing_and_of_numbers_by_words_are_refused(message: str, overrides: list[str]) -> None:
    """The result said that they had been used."""
    config = Config({"model": {"strides": [4, 8], "name": "x", "size": (1, 2)}})
    for override in overrides:
        with pytest.raises(ValueError, match=message):
            apply_override(config, override)
