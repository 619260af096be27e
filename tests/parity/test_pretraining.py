"""SelfPatch and PW-Self against recordings of their authors' code. Every dimension comes from the golden files."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.layouts.architecture import vit_spec
from pretrain.config import OptimConfig, PretrainConfig
from pretrain.data.views import CropBox
from pretrain.heads import Projections
from pretrain.methods import ALL_PATCHES, DINOConfig, SelfPatchConfig
from pretrain.networks import Networks, build_optimizer, choose_autocast
from pretrain.objectives.base import Outputs
from pretrain.objectives.patch_matching import matching_patches
from pretrain.objectives.selfpatch import Aggregation, SelfPatch, candidate_table, select_positives
from pretrain.schedules import StepSettings, cosine, linear
from pretrain.step import training_step
from tests.references import selfpatch as reference

GLOBAL_CROPS = 2


def load(golden_dir: Path, name: str) -> Any:
    return torch.load(golden_dir / "selfpatch" / name, weights_only=True)


def our_name(name: str) -> str:
    """Our parameter names for the authors'."""
    for pattern, replacement in (
        (r"^ca_head\.", "heads.aggregation."),
        (r"^c_head\.", "heads.cls."),
        (r"^p_head\.", "heads.patch."),
        (r"cls_blocks\.", "blocks."),
        (r"(blocks\.\d+\.)attn\.q\.", r"\1query."),
        (r"(blocks\.\d+\.)attn\.k\.", r"\1key."),
        (r"(blocks\.\d+\.)attn\.v\.", r"\1value."),
        (r"last_layer\.(parametrizations\.weight\.original0|weight_g)$", "last_layer.parametrizations.weight.original0"),
        (r"last_layer\.(parametrizations\.weight\.original1|weight_v)$", "last_layer.parametrizations.weight.original1"),
        (r"^(?!backbone\.)(.*blocks\.\d+\.)attn\.proj\.", r"\1projection."),
        (r"^(?!backbone\.)(.*blocks\.\d+\.mlp\.)fc1\.", r"\g<1>0."),
        (r"^(?!backbone\.)(.*blocks\.\d+\.mlp\.)fc2\.", r"\g<1>2."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def ours(state_dict: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {our_name(prefix + name).removeprefix(our_name(prefix)): value for name, value in state_dict.items()}


def test_neighbours(golden_dir: Path) -> None:
    tables = load(golden_dir, "neighbours.pt")
    assert tables
    for (count, k_size), table in tables.items():
        side = round(count**0.5)
        window = ALL_PATCHES if k_size >= side and table.shape[1] == count - 1 else k_size
        expected = [set(row) for row in table.tolist()]
        assert [set(row) for row in candidate_table((side, side), window).tolist()] == expected


def test_head(golden_dir: Path) -> None:
    cases = load(golden_dir, "head.pt")
    assert cases
    for case in cases:
        aggregation = Aggregation(case["dim"], case["num_heads"])
        aggregation.load_state_dict(ours(case["state_dict"], "ca_head."))
        patches = case["x"]
        side = round(patches.shape[1] ** 0.5)
        positives = select_positives(patches, (side, side), 3, case["k_num"])
        with torch.no_grad():
            cls = aggregation(patches)
            teacher = torch.cat([cls, aggregation(patches, positives)], dim=1)
            student = torch.cat([cls, aggregation.norm(patches)], dim=1)
        torch.testing.assert_close(teacher, case["teacher"], atol=1e-5, rtol=0)
        torch.testing.assert_close(student, case["student"], atol=1e-5, rtol=0)


def view_logits(groups: list[list[Tensor]], ncrops: int) -> Outputs:
    cls: list[Tensor] = []
    patches: list[Tensor] = []
    for (group_cls, group_patches), views in zip(groups, (GLOBAL_CROPS, ncrops - GLOBAL_CROPS), strict=True):
        cls += group_cls.squeeze(1).chunk(views)
        patches += group_patches.chunk(views)
    return Outputs(Projections(cls), Projections(patches))


def test_loss(golden_dir: Path) -> None:
    case = load(golden_dir, "loss.pt")
    config = case["config"]
    dino = DINOConfig(
        out_dim=config["out_dim"],
        student_temperature=config["student_temp"],
        teacher_temperature=config["teacher_temp"],
        warmup_teacher_temperature=config["warmup_teacher_temp"],
        warmup_teacher_temperature_epochs=config["warmup_teacher_temp_epochs"],
        centre_momentum=config["center_momentum"],
    )
    temperatures = dino.warmup_teacher_temperature, dino.teacher_temperature, dino.warmup_teacher_temperature_epochs
    selfpatch = SelfPatchConfig(out_dim=config["out_dim_patch"])
    objective = SelfPatch(PretrainConfig(method="selfpatch", dino=dino, selfpatch=selfpatch))
    assert case["steps"]
    for step in case["steps"]:
        student, teacher = (view_logits(step[role], config["ncrops"]) for role in ("student", "teacher"))
        losses = objective(student, teacher, linear(step["epoch"], *temperatures))
        objective.move()
        for name in ("loss", "cls_loss", "patch_loss"):
            assert losses[name].item() == pytest.approx(step[name], abs=1e-5, rel=1e-6), name
        centres = objective.state_dict()
        torch.testing.assert_close(centres["image_loss.centre.mean_K"], step["center"].flatten(), atol=1e-5, rtol=0)
        torch.testing.assert_close(centres["patch_loss.centre.mean_K"], step["patch_center"].flatten(), atol=1e-5, rtol=0)


def without_key_bias(name: str, value: Tensor) -> Tensor:
    """Leave out what no two implementations share.

    A bias of all keys moves every logit of a query alike, which the softmax ignores. Its gradient is rounding noise, and Adam
    scales noise up to the learning rate.
    """
    if name.endswith("key.bias"):
        return value[:0]
    if name.endswith("attn.qkv.bias"):
        query, _, value_bias = value.chunk(3)
        return torch.cat([query, value_bias])
    return value


def student_settings(index: int, step: dict[str, Any]) -> dict[str, Any]:
    constants = {name: step[name] for name in ("lr", "weight_decay", "clip_grad")}
    return {**constants, "freeze_last_layer": index < step["freeze_last_layer"]}


def test_train_steps(golden_dir: Path) -> None:
    case = load(golden_dir, "train_steps.pt")
    dino = DINOConfig(out_dim=case["out_dim"], hidden_dim=case["hidden_dim"], bottleneck_dim=case["bottleneck_dim"])
    selfpatch = SelfPatchConfig(out_dim=case["out_dim_patch"], k=case["k"])
    objective = SelfPatch(PretrainConfig(method="selfpatch", dino=dino, selfpatch=selfpatch))
    weights = {name.removeprefix("backbone."): value for name, value in case["initial"].items() if name.startswith("backbone.")}
    spec = vit_spec(weights, case["num_heads"])
    student, teacher = (objective.build_network(spec, 0.0, role) for role in ("student", "teacher"))
    for network in (student, teacher):
        network.load_state_dict(ours(case["initial"]))
    teacher.requires_grad_(False)
    autocast = choose_autocast("float32", torch.device("cpu"))
    networks = Networks(spec, student, teacher, objective, build_optimizer(student), autocast)
    assert case["steps"]
    for index, step in enumerate(case["steps"]):
        of_teacher = {"teacher_momentum": step["momentum"], "teacher_temperature": dino.teacher_temperature}
        settings = StepSettings(**student_settings(index, step), **of_teacher)
        losses = training_step(student, networks, step["crops"], settings)
        for name in ("loss", "cls_loss", "patch_loss"):
            assert losses[name].item() == pytest.approx(step[name], abs=1e-4), (index, name)
    for network, expected in ((student, case["student"]), (teacher, case["teacher"])):
        for name, (found, wanted) in matched_weights(network, expected).items():
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0, msg=name)


def matched_weights(network: nn.Module, expected: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    state = network.state_dict()
    return {
        name: (without_key_bias(name, state[name]), without_key_bias(name, value)) for name, value in ours(expected).items()
    }


def test_the_benchmarks_reference_takes_the_authors_steps(golden_dir: Path) -> None:
    case = load(golden_dir, "train_steps.pt")
    sizes = reference.Dimensions(
        **{name: case[name] for name in ("dim", "depth", "num_heads", "patch_size", "out_dim", "out_dim_patch", "k")},
        **{name: case[name] for name in ("hidden_dim", "bottleneck_dim")},
        grid_side=round(case["initial"]["backbone.pos_embed"].shape[1] ** 0.5),
    )
    student, teacher = reference.Network(sizes), reference.Network(sizes)
    for network in (student, teacher):
        network.load_state_dict(ours(case["initial"]))
    schedules = [
        reference.Schedule(
            **student_settings(index, step), momentum=step["momentum"], temperature=DINOConfig().teacher_temperature
        )
        for index, step in enumerate(case["steps"])
    ]
    assert schedules
    batches = zip([step["crops"] for step in case["steps"]], schedules, strict=True)
    for losses, step in zip(reference.training_steps(student, teacher, batches), case["steps"], strict=True):
        assert losses == pytest.approx({name: step[name] for name in losses}, abs=1e-4)
    for network, expected in ((student, case["student"]), (teacher, case["teacher"])):
        for name, (found, wanted) in matched_weights(network, expected).items():
            # Adam moves a weight by the learning rate also where its gradient is next to nothing, and rounding then decides on the
            # direction: a few may differ by more than what is required of our own step.
            beyond = (found - wanted).abs() > 1e-4
            assert beyond.sum() <= 1e-3 * beyond.numel(), name
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0, msg=name)


def recovered_schedule(values: list[float]) -> dict[str, Any]:
    """The arguments whose warm-up, start and end the recorded values show; the values in between are what is tested."""
    steps = len(values)
    warmup_steps = values.index(max(values)) + 1 if values[0] == 0 else 0
    start = values[warmup_steps]
    remaining = 1 + math.cos(math.pi * (steps - 1 - warmup_steps) / (steps - warmup_steps))
    end = (values[-1] - 0.5 * start * remaining) / (1 - 0.5 * remaining)
    return {"start": start, "end": end, "steps": steps, "warmup_steps": warmup_steps}


def test_schedules(golden_dir: Path) -> None:
    recorded = load(golden_dir, "schedules.pt")
    assert recorded
    for name, values in recorded.items():
        schedule = recovered_schedule(values)
        assert [cosine(step, **schedule) for step in range(len(values))] == pytest.approx(values, abs=1e-9), name


def test_default_constants_are_the_authors() -> None:
    optim, dino, selfpatch = OptimConfig(), DINOConfig(), SelfPatchConfig()
    assert (optim.lr, optim.min_lr, optim.warmup_epochs, optim.clip_grad) == (0.0005, 1e-6, 10, 3.0)
    assert (optim.weight_decay, optim.weight_decay_end, optim.teacher_momentum) == (0.04, 0.4, 0.996)
    assert (dino.out_dim, dino.student_temperature, dino.teacher_temperature, dino.centre_momentum) == (65536, 0.1, 0.04, 0.9)
    assert (selfpatch.out_dim, selfpatch.window, selfpatch.k, selfpatch.weight) == (4096, 3, 4, 0.1)


def test_geometric_matches_of_pw_self(golden_dir: Path) -> None:
    def box(crop: dict[str, Any]) -> CropBox:
        return CropBox(*(crop[name] for name in ("top", "left", "height", "width", "flip")))

    cases = json.loads((golden_dir / "patch_matching.json").read_text())
    assert cases
    for index, case in enumerate(cases):
        first, second = case["crop1"], case["crop2"]
        grids = [(crop["grid"], crop["grid"]) for crop in (first, second)]
        assert matching_patches(box(first), box(second), *grids).tolist() == case["pairs"], index
