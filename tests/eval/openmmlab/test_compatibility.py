import os
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

import eval.openmmlab  # noqa: F401 - registers the safe loader
from eval.openmmlab.compatibility import quiet_packages


class _RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_mmengine_never_unpickles_code(tmp_path: Path) -> None:
    # mmengine's own loader falls back to unpickling whatever it finds.
    torch.save({"state_dict": _RunsCode(tmp_path / "ran")}, tmp_path / "foreign.pth")
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(tmp_path / "foreign.pth"), map_location="cpu")
    assert not (tmp_path / "ran").exists()


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(2)}, "meta": {"iter": 3}}, tmp_path / "ours.pth")
    content = CheckpointLoader.load_checkpoint(str(tmp_path / "ours.pth"), map_location="cpu")
    assert content["meta"] == {"iter": 3}
    assert torch.equal(content["state_dict"]["weight"], torch.ones(2))


def test_quiet_packages_keeps_standard_output_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_packages():
        print("loading annotations into memory...")
    assert capsys.readouterr().out == ""
