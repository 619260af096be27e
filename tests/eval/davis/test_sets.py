"""YouTube-VOS, MOSE, and DAVIS where masks are withheld: what is read, propagated, scored, and packed for the servers."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis.config import DavisConfig
from eval.davis.data import DavisSplit, examine, find_sequences
from eval.davis.scores import ScoresConfig, score
from eval.davis.task import evaluate
from eval.propagation.masks import PALETTE_256x3, read_image, read_mask, write_mask
from eval.propagation.measures import measure_from_beginnings
from eval.propagation.protocol import ProtocolName
from eval.record import metrics_line
from tables.make import build_tables, render_tables
from tests.eval.davis.conftest import FRAMES, Run, draw_sequence


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


BEGINS = 2  # the frame in which object 2 begins


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    """YouTube-VOS' layout: the second object of a video begins later; of `valid` only the masks of beginnings are there."""
    root = tmp_path / "youtube"
    draw_sequence(tmp_path / "drawn", "aa01", seed=5)
    for split in ("train", "valid"):
        for kind in ("JPEGImages", "Annotations"):
            shutil.copytree(tmp_path / f"drawn/{kind}/480p", root / split / kind)
        (root / split / "meta.json").write_text(json.dumps({"videos": {"aa01": {"objects": {"1": {}, "2": {}}}}}))
        for number, path in enumerate(sorted((root / split / "Annotations/aa01").glob("*.png"))):
            mask = read_mask(path).copy()
            if number < BEGINS:
                frame = root / split / f"JPEGImages/aa01/{path.stem}.jpg"
                pixels = read_image(frame).copy()
                pixels[mask == 2] = np.random.default_rng(number).integers(0, 256, 3)
                Image.fromarray(pixels).save(frame)
                mask[mask == 2] = 0
            elif split == "valid" and number == BEGINS:
                mask[mask == 1] = 0
            write_mask(path, mask)
            if split == "valid" and number not in (0, BEGINS):
                path.unlink()
    return root


@pytest.mark.parametrize("protocol", ["dino", "dinov3", "cropmae"])
def test_an_object_takes_its_first_mask_when_it_comes(youtube: Path, config: DavisConfig, protocol: ProtocolName) -> None:
    config = replace(config, data=youtube, dataset="youtube-vos-2018", protocol=protocol, short_side=96)
    scored = evaluate(replace(config, split="train", output=config.output / "train"))
    name = "vos-label-propagation" + ("" if protocol == "dino" else f"-{protocol}")
    assert (scored.protocol.name, scored.datasets["test"].name, scored.note) == (name, "YouTube-VOS 2018", "")
    assert list(scored.breakdown) == ["aa01_1", "aa01_2"]
    result = evaluate(replace(config, output=config.output / "valid"))
    assert (result.metrics, result.datasets["test"].split) == ({}, "valid")
    for split in ("train", "valid"):
        masks = [read_mask(config.output / split / f"masks/aa01/{number:05d}.png") for number in range(FRAMES)]
        shown = [2 in mask for mask in masks]
        assert shown[: BEGINS + 1] == [False] * BEGINS + [True]
        truth = read_mask(youtube / f"train/Annotations/aa01/{BEGINS:05d}.png")
        assert (masks[BEGINS][truth == 2] == 2).all()
        if protocol != "cropmae":  # of whose votes fresh weights and one frame give too few
            found, wanted = masks[-1] == 2, read_mask(youtube / f"train/Annotations/aa01/{FRAMES - 1:05d}.png") == 2
            assert (found & wanted).sum() / (found | wanted).sum() > 0.2
    with zipfile.ZipFile(config.output / "valid/submission.zip") as archive:
        assert archive.namelist() == [f"Annotations/aa01/{number:05d}.png" for number in range(FRAMES)]
    assert "youtube-vos" not in result.note
    assert "competitions/7685" in result.note


def test_an_object_counts_in_the_frames_after_its_first(youtube: Path, tmp_path: Path) -> None:
    truth = youtube / "train/Annotations/aa01"
    measures = measure_from_beginnings(truth, shutil.copytree(truth, tmp_path / "found"))
    nothing = [np.nan] * FRAMES
    expected = [[*nothing[:1], *[1.0] * (FRAMES - 1)], [*nothing[: BEGINS + 1], *[1.0] * (FRAMES - BEGINS - 1)]]
    np.testing.assert_array_equal(measures.region, expected)
    assert measures.ids == (1, 2)
    for path in truth.iterdir():
        path.rename(path.with_suffix(".PNG"))
    again = measure_from_beginnings(truth, tmp_path / "found")
    np.testing.assert_array_equal(again.region, measures.region)


def test_a_video_may_begin_without_any_object(youtube: Path, config: DavisConfig) -> None:
    """Some of YouTube-VOS do; there is nothing in the masks before its first."""
    (youtube / "valid/Annotations/aa01/00000.png").unlink()
    config = replace(config, data=youtube, dataset="mose", short_side=96)
    evaluate(config)
    masks = [read_mask(config.output / f"masks/aa01/{number:05d}.png") for number in range(FRAMES)]
    assert [sorted(np.unique(mask).tolist()) for mask in masks[: BEGINS + 1]] == [[0], [0], [0, 2]]


def test_the_command_scores_only_where_all_masks_are_there(youtube: Path, tmp_path: Path, run: Run) -> None:
    """The masks of beginnings lack the objects that began before, which counted as wrong."""
    options = "--dataset", "youtube-vos-2018", "--annotations", youtube, "--output", tmp_path / "scored"
    given = "--predictions", youtube / "train/Annotations"
    assert run("scores", *options, *given, "--split", "train").output().splitlines()[1].startswith("1.0,1.0,")
    message = r"valid/Annotations/aa01: no masks of frames 00001, 00003, 00004; .*/7685 scores where masks are withheld"
    with pytest.raises(ValueError, match=message):
        score(ScoresConfig(annotations=youtube, predictions=given[1], output=tmp_path, dataset="youtube-vos-2018"))


def test_what_is_wrong_with_such_a_folder_is_said_in_one_line(youtube: Path) -> None:
    with pytest.raises(ValueError, match="has the layout of YouTube-VOS and MOSE; give --dataset youtube-vos-2018 or"):
        find_sequences(DavisSplit(root=youtube), all_masks=True)
    split = DavisSplit(root=youtube, dataset="youtube-vos-2019", split="valid")
    assert [sequence.name for sequence in find_sequences(split, all_masks=True)] == ["aa01"]
    assert examine(youtube) == []
    (youtube / "valid/JPEGImages/aa01/00003.jpg").unlink()  # not every frame of a video is in these sets
    assert len(find_sequences(split, all_masks=True)[0].frames) == FRAMES - 1
    with pytest.raises(ValueError, match="--dataset mose has neither"):
        DavisSplit.chosen(youtube, replace(split, dataset="mose", year="2016"))
    meta = youtube / "valid/meta.json"
    meta.write_text('{"videos": {"aa01": {}, "bb02": {}}}')
    with pytest.raises(ValueError, match=r"sequences have no frames \(\*\.jpg\) in valid/JPEGImages: bb02"):
        find_sequences(split, all_masks=True)
    assert any("bb02" in str(finding) for finding in examine(youtube))
    meta.write_text('{"videos": {"../aa01": {}}}')
    with pytest.raises(ValueError, match=r"meta\.json: video"):
        find_sequences(split, all_masks=True)
    meta.write_text("[]")
    with pytest.raises(ValueError, match=r"meta\.json: not a list of videos"):
        find_sequences(split, all_masks=True)
