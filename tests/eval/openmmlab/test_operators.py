import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.utils.dl_utils.misc import mmcv_full_available

from backbones.checkpoint import CheckpointError
from eval.openmmlab.operators import EXTENSION, install_operators, quiet_packages

# isort: split
from mmcv.ops import nms, roi_align


def test_mmengine_takes_mmcv_for_complete() -> None:
    # It asks importlib.util.find_spec; a module without __spec__ makes that a ValueError.
    assert mmcv_full_available()
    spec = importlib.util.find_spec(EXTENSION)
    assert spec is not None
    assert spec.loader is not None


def test_what_is_not_served_is_named_when_called_not_when_looked_up() -> None:
    softnms = importlib.import_module(EXTENSION).softnms
    with pytest.raises(NotImplementedError, match="softnms"):
        softnms(torch.zeros(1, 4))
    with pytest.raises(NotImplementedError, match="maximum pooling"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max", True)


def test_half_precisions_are_served() -> None:
    features = torch.randn(1, 2, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    pooled = roi_align(features, torch.tensor([[0.0, 0, 0, 8, 8]]).bfloat16(), 2, 1.0, 0, "avg", True)
    pooled.sum().backward()
    assert features.grad is not None
    assert pooled.dtype == features.grad.dtype == torch.bfloat16
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], dtype=torch.bfloat16)
    _, kept = nms(boxes, torch.tensor([0.5, 0.9, 0.1], dtype=torch.bfloat16), 0.5)
    assert kept.tolist() == [1, 2]


def test_steps_aside_for_the_real_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType(EXTENSION)
    monkeypatch.setitem(sys.modules, EXTENSION, real)
    install_operators()
    assert sys.modules[EXTENSION] is real


def test_coming_too_late_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, EXTENSION)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "mmdet.structures", ModuleType("mmdet.structures"))
    with pytest.raises(ImportError, match=r"import eval\.openmmlab\.operators before .*mmdet\.structures"):
        install_operators()


def test_mmengine_reads_tensors_and_plain_values_and_never_unpickles_code(tmp_path: Path) -> None:
    # mmengine's own loader falls back to unpickling whatever it finds.
    torch.save({"state_dict": tmp_path}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}/foreign\.pth: embeds the object pathlib.*refused"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "foreign.pth"), map_location="cpu")
    torch.save({"meta": {"iter": 3}}, tmp_path / "ours.pth")
    assert CheckpointLoader.load_checkpoint(str(tmp_path / "ours.pth"), map_location="cpu") == {"meta": {"iter": 3}}


def test_quiet_packages_keeps_standard_output_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_packages():
        print("loading annotations into memory...")
    assert capsys.readouterr().out == ""
