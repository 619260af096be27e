"""Weight decay on the built detector's own parameters, by its real optimiser."""

from pathlib import Path

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from backbones.spec import ViTSpec
from eval.detection.config import DetectionConfig
from eval.detection.data import check_data
from eval.detection.experiment import resolve
from eval.openmmlab.batch import BatchPlan


@pytest.fixture(scope="module")
def decays(toy_file: Path, toy_spec: ViTSpec, coco: Path) -> dict[str, float]:
    options = DetectionConfig(backbone=toy_file, data=coco, output=Path("out"))
    config = resolve(options, toy_spec, check_data(coco), BatchPlan(total=8, per_device=1, world_size=8), "float32")
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    by_parameter = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: by_parameter[id(value)] for name, value in model.named_parameters() if value.requires_grad}


def test_positions_and_block_norms_are_not_decayed(decays: dict[str, float]) -> None:
    undecayed = {name for name, decay in decays.items() if decay == 0}
    assert undecayed == {name for name in decays if name.endswith("pos_embed") or ".norm1." in name or ".norm2." in name}
    assert "backbone.network.blocks.0.norm1.weight" in undecayed
    assert set(decays.values()) == {0.0, 0.05}


def test_the_pyramids_batch_norm_is_decayed(decays: dict[str, float]) -> None:
    """As published: `norm` is no part of its name there (fpn1.1)."""
    assert decays["backbone.pyramid.branches.0.1.weight"] == decays["backbone.pyramid.branches.0.1.bias"] == 0.05
