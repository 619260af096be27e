from pathlib import Path
from typing import Any

import pytest
import torch

from eval.openmmlab.launch import _begin, fuse_updates, optimiser_wrapper, resolve_device, resolve_precision
from eval.openmmlab.runner import JsonConfig, latest_checkpoint


def test_half_precision_needs_a_gpu() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == "float32"
    with pytest.raises(ValueError, match="bfloat16 needs a GPU"):
        resolve_precision("bfloat16", cpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_asking_for_an_absent_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="use --device cpu"):
        resolve_device("cuda")


def test_only_float16_scales_its_loss() -> None:
    assert optimiser_wrapper({"clip_grad": None}, "float32", 2) == {
        "type": "OptimWrapper",
        "clip_grad": None,
        "accumulative_counts": 2,
    }
    assert optimiser_wrapper({}, "bfloat16", 1) == {"type": "AmpOptimWrapper", "dtype": "bfloat16", "accumulative_counts": 1}
    assert optimiser_wrapper({}, "float16", 1)["loss_scale"] == "dynamic"


@pytest.mark.parametrize(
    ("optimiser", "device", "fused"),
    [
        ({"type": "AdamW"}, "cpu", True),
        ({"type": "SGD", "lr": 0.1}, "cpu", True),
        ({"type": "AdamW", "fused": False}, "cpu", False),
        ({"type": "LBFGS"}, "cpu", None),
        ({"type": "AdamW"}, "cuda", None),
    ],
)
def test_updates_on_a_cpu_are_fused(optimiser: dict[str, Any], device: str, fused: bool | None) -> None:
    fuse_updates(optimiser, torch.device(device))
    assert optimiser.get("fused") is fused


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_fused_updates_are_those_of_the_default(kind: type[torch.optim.Optimizer]) -> None:
    weights = {}
    for fused in (False, True):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(50, 7))
        constants: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        optimiser = kind([weight], lr=0.01, weight_decay=0.05, fused=fused, **constants)
        for _ in range(5):
            weight.grad = torch.randn_like(weight)
            optimiser.step()
        weights[fused] = weight.detach()
    torch.testing.assert_close(weights[True], weights[False], atol=1e-6, rtol=1e-6)


def test_a_folder_keeps_to_the_inputs_it_was_begun_with(tmp_path: Path) -> None:
    _begin(tmp_path, {"seed": 0, "protocol": {"epochs": 12}})
    _begin(tmp_path, {"seed": 0, "protocol": {"epochs": 12}})
    with pytest.raises(ValueError, match=r"unfinished run with other inputs \(seed 0 -> 1, protocol.epochs 12 -> 3\)"):
        _begin(tmp_path, {"seed": 1, "protocol": {"epochs": 3}})


def test_latest_checkpoint_goes_by_iteration_not_by_name(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for iteration in (9, 10):
        (tmp_path / f"iter_{iteration}.pth").touch()
    # What a kill while writing leaves behind.
    (tmp_path / ".iter_11.123.tmp.pth").touch()
    assert latest_checkpoint(tmp_path) == (tmp_path / "iter_10.pth", 10)


def test_config_text_is_json_that_mmengine_reads_back(tmp_path: Path) -> None:
    config = JsonConfig({"model": {"type": "X", "taps": [1, 2]}})
    (tmp_path / "config.json").write_text(config.pretty_text, encoding="utf-8")
    assert JsonConfig.fromfile(tmp_path / "config.json").to_dict() == config.to_dict()
