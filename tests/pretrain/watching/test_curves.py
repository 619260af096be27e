import json
from pathlib import Path

import pytest
from PIL import Image

from pretrain.watching.curves import panels, write_curves


def test_panels_of_what_there_is() -> None:
    dino = {"step", "epoch", "loss", "cls_entropy_part", "cls_batch_entropy_part", "cls_centre_norm", "lr", "weight_decay"}
    titles = [panel.title for panel in panels(dino)]
    assert titles == ["loss", "entropy of targets\n(part of log K)", "length of the centre", "learning rate"]
    moby = {"loss", "cls_loss", "patch_loss", "cls_deviation", "patch_similarity", "knn_top1", "lr"}
    assert [panel.names for panel in panels(moby)] == [
        ["loss"], ["cls_loss", "patch_loss"], ["cls_deviation", "patch_similarity"], ["knn_top1"], ["lr"],
    ]  # fmt: skip


def test_the_picture_of_a_log(tmp_path: Path) -> None:
    lines = [
        {"step": step, "loss": 1 / step, "lr": 0.1} | ({"knn_top1": 9.0} if step % 5 == 0 else {}) for step in range(1, 20)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_curves(tmp_path, tmp_path / "watch" / "curves.png")
    with Image.open(tmp_path / "watch" / "curves.png") as picture:
        assert picture.width > 500
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match="no line"):
        write_curves(tmp_path, tmp_path / "curves.png")
