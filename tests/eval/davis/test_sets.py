"""YouTube-VOS, MOSE, and DAVIS where masks are withheld: what is read, propagated, scored, and packed for the servers."""

import zipfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from eval.davis.config import DavisConfig
from eval.davis.task import evaluate
from eval.propagation.masks import PALETTE_256x3
from eval.record import metrics_line
from tables.make import build_tables, render_tables


def test_a_split_of_davis_whose_masks_are_withheld_gets_masks_for_its_server(davis: Path, config: DavisConfig) -> None:
    (davis / "ImageSets/2017/test-dev.txt").write_text("boat\ncart\n")
    for name in ("boat", "cart"):
        for path in sorted((davis / "Annotations/480p" / name).glob("*.png"))[1:]:
            path.unlink()
    config = replace(config, split="test-dev", name="tiny")
    result = evaluate(config)
    assert (result.metrics, result.breakdown, result.artefacts) == ({}, {}, {"masks": "masks", "submission": "submission.zip"})
    address = "https://codalab.lisn.upsaclay.fr/competitions/6812"
    assert result.note == f"no figures: masks of DAVIS-2017, test-dev, are withheld; submit submission.zip to {address}"
    assert metrics_line(config.output, result).startswith(result.note)
    frames = {name: sorted((davis / "JPEGImages/480p" / name).glob("*.jpg")) for name in ("boat", "cart")}
    with zipfile.ZipFile(config.output / "submission.zip") as archive:
        assert archive.namelist() == [f"{name}/{path.stem}.png" for name, paths in frames.items() for path in paths]
        with archive.open("boat/00003.png") as stream, Image.open(stream) as mask:
            assert mask.mode == "P"
            assert mask.getpalette() == PALETTE_256x3.ravel().tolist()
    assert evaluate(config) == result
    assert "tiny" not in render_tables(build_tables(config.output.parent))["tables.md"]
