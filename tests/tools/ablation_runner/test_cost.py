"""The estimate is a count: against sums by hand, and against what a step takes."""

import pytest

from pretrain.config import PretrainConfig, parse_run
from tools.ablation_runner.cost import count_flops, given_speed, measure_work, timed_speed
from tools.ablation_runner.job import as_options
from tools.ablation_runner.scales import tiny_overrides


def vit_flops(width: int, depth: int, tokens: int) -> int:
    """A forward pass by hand: qkv, projection and a four times wider MLP take 12 width^2 per token, attention 2 width tokens."""
    return 2 * depth * tokens * (12 * width**2 + 2 * width * tokens)


def embedding_flops(width: int, patch: int, patches: int) -> int:
    return 2 * patches * width * 3 * patch**2


def tiny(recipe: str) -> PretrainConfig:
    return parse_run([recipe, *as_options(tiny_overrides(parse_run([recipe])))])


def test_dino_by_hand() -> None:
    config = tiny("coco_dino_vit_tiny")
    forward = {}
    for side in (96, 80):
        patches = (side // 16) ** 2
        head = 2 * (192 * 256 + 256 * 256 + 256 * 64 + 64 * 512)
        forward[side] = (vit_flops(192, 12, patches + 1), embedding_flops(192, 16, patches), head)
    # The teacher sees the two global crops. Backward is twice forward, but for the embedding, whose input needs no gradient,
    # and the frozen last layer's weight, which gets none.
    teacher = 2 * sum(forward[96])
    student = sum(2 * (3 * vit + 2 * embedding + 3 * head) for vit, embedding, head in forward.values())
    assert count_flops(config) == pytest.approx(teacher + student, rel=0.01)


def test_selfpatch_costs_more_than_dino_and_a_longer_training_more_than_a_short_one() -> None:
    dino, selfpatch = tiny("coco_dino_vit_tiny"), tiny("coco_selfpatch_vit_tiny")
    assert 1.1 * count_flops(dino) < count_flops(selfpatch) < 4 * count_flops(dino)
    short, images = measure_work(dino, 48), 48
    assert (short.steps, short.images) == (18, 144)
    assert short.flops == 144 * short.flops_per_image
    longer = measure_work(parse_run(["coco_dino_vit_tiny", *as_options([*tiny_overrides(dino), "train.epochs=30"])]), images)
    assert longer.flops == 10 * short.flops


def test_speeds() -> None:
    config = tiny("coco_dino_vit_tiny")
    config.train.device = "cpu"
    work = measure_work(config, 48)
    assert given_speed(10.0, "run", work).flops_per_second == 10 * work.flops_per_image
    timed = timed_speed(config, "run", work)
    assert timed.flops_per_second > 0
    assert "images/s of run, timed just now over 2 steps of 2 random images on the CPU" in timed.basis
