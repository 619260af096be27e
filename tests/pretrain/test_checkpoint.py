"""The checkpoint: what it says of its run, when it is written and kept, where a run starts, and its export."""

import errno
import gzip
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.convert import open_backbone
from backbones.file import read_backbone_file
from common.files import file_sha256
from pretrain.__main__ import main
from pretrain.checkpoint import Checkpoint, link_or_copy, recipe_digest, run_settings
from pretrain.config import PretrainConfig, parse_run
from pretrain.methods import METHODS, MethodName
from pretrain.networks import build_networks
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import after_step, assert_equal, bare_run, full_disk, logged, tiny_config, weights

RECORDED = Path(__file__).parent / "recorded"


def run(images: Path, output: Path, method: str = "dino", **options: object) -> Path:
    return pretrain(parse_run(bare_run(images, output, method, **options)))


def checkpoints(output: Path) -> list[str]:
    return sorted(path.name.removeprefix("checkpoint").removesuffix(".pth") for path in output.glob("*.pth"))


class Stop(BaseException):
    """Stands for a kill."""


def run_until(config: PretrainConfig, step: int) -> None:
    def kill(*_: object) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, step + 1, kill)
        with pytest.raises(Stop):
            pretrain(config)


@pytest.mark.parametrize(
    ("recipe", "changed", "same"),
    [
        ("sample_dino", "--train.seed 5", True),
        ("sample_dino", "--data.workers 1", True),
        ("sample_dino", "--optim.lr 0.123", False),
        ("sample_selfpatch", "--train.accumulate 2", True),
        # Heads that normalise over the batch do so over its parts.
        ("sample_selfpatch --selfpatch.negatives --selfpatch.out_dim 4096", "--train.accumulate 2", False),
        ("sample_moby", "--train.accumulate 2", False),
    ],
)
def test_runs_of_one_recipe_share_their_digest(recipe: str, changed: str, same: bool) -> None:
    def digest(options: str = "", image: str = "a.jpg") -> str:
        return recipe_digest(run_settings(parse_run([*recipe.split(), *options.split()]), [image]))

    assert (digest() == digest(changed)) == same
    assert digest() != digest(image="b.jpg"), "other images are another recipe"


@pytest.mark.parametrize(
    ("method", "options", "losses"),
    [
        ("selfpatch", {"selfpatch__out_dim": 8}, [0.20931357, 0.21850736, 0.23994357]),
        (
            "moby_selfpatch",
            {"selfpatch__negatives": "true", "moby__hidden_dim": 16, "moby__out_dim": 8, "moby__queue": 8},
            [5.8813281, 5.8986105, 4.6462454],
        ),
        ("patch_matching", {}, [3.1297168, 2.2265446, 2.5044305]),
    ],
)
def test_a_checkpoint_of_an_older_version_is_continued(
    image_folder: Path, tmp_path: Path, method: MethodName, options: dict[str, Any], losses: list[float]
) -> None:
    """Names of the state, the digest of the images, stochastic depth and all running state fit.

    The losses are those of steps 4 to 6 of the runs whose third step left the recorded checkpoints, at 31a9fdb.
    """
    options = {"backbone__embed_dim": 8, "backbone__depth": 1, "backbone__drop_path_rate": 0.3, **options}
    if "dino" in METHODS[method].sections:
        options |= {"dino__out_dim": 16, "dino__hidden_dim": 16, "dino__bottleneck_dim": 8}
    recorded = tmp_path / "recorded.pth"
    recorded.write_bytes(gzip.decompress((RECORDED / f"{method}.pth.gz").read_bytes()))
    checkpoint = run(image_folder, tmp_path / "run", method, train__resume=recorded, train__checkpoint_every=3, **options)
    lines = logged(tmp_path / "run")
    assert [line["step"] for line in lines] == [4, 5, 6]
    assert [line["loss"] for line in lines] == pytest.approx(losses, abs=1e-3)
    before, after = (torch.load(path, weights_only=True) for path in (recorded, checkpoint))
    assert after["recipe_sha256"] == before["recipe_sha256"]
    assert open_backbone(recorded).source.branch == open_backbone(checkpoint).source.branch == METHODS[method].branch


def test_the_newest_and_every_kth_stay(image_folder: Path, tmp_path: Path) -> None:
    """Three steps an epoch, a checkpoint at every second step and at the epochs that are kept."""
    output = tmp_path / "run"
    output.mkdir()
    foreign = output / "checkpoint_step00000001.pth"
    foreign.write_text("of another run")
    options = {"train__checkpoint_every": 2, "train__keep_last": 3, "train__keep_every": 2, "optim__warmup_epochs": 0}
    run(image_folder, output, train__epochs=4, **options)
    newest = ["_step00000008", "_step00000010", "_step00000012"]
    assert checkpoints(output) == ["", "_epoch0002", "_epoch0004", "_step00000001", *newest]
    assert foreign.read_text() == "of another run"
    for name in ("checkpoint_step00000012.pth", "checkpoint_epoch0004.pth"):
        assert (output / name).samefile(output / "checkpoint.pth"), "a second name, no second copy"
    assert torch.load(output / "checkpoint_epoch0002.pth", weights_only=True)["step"] == 6
    assert torch.load(output / "checkpoint_step00000010.pth", weights_only=True)["step"] == 10


def test_a_continued_run_goes_on_removing_its_own(image_folder: Path, tmp_path: Path) -> None:
    config = parse_run(bare_run(image_folder, tmp_path / "run", train__checkpoint_every=1, train__epochs=3))
    run_until(config, 4)
    assert checkpoints(tmp_path / "run") == ["", "_step00000003", "_step00000004"]
    config.train.keep_last = 1
    pretrain(config)
    assert checkpoints(tmp_path / "run") == [""]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_kept_checkpoint_outlives_its_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path, kept, fresh = tmp_path / "checkpoint.pth", tmp_path / "kept.pth", tmp_path / "fresh"
    path.write_text("old")
    link_or_copy(path, kept)
    assert path.samefile(kept) == has_links
    fresh.write_text("new")
    fresh.replace(path)
    assert (path.read_text(), kept.read_text()) == ("new", "old")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["checkpoint.pth", "kept.pth"]


def test_a_full_disk_leaves_the_previous_checkpoint(image_folder: Path, tmp_path: Path, run_main: RunMain) -> None:
    """The limit on a file's size stands for the disk: the same failure of the same system call, in the middle of the file."""
    output = tmp_path / "run"
    options = bare_run(image_folder, output, train__checkpoint_every=1)
    run_until(parse_run(options), 2)
    path = output / "checkpoint.pth"
    before = path.read_bytes()
    with full_disk(len(before) // 2):
        finished = run_main(main, options)
    assert finished.status == 2
    message = finished.stderr.splitlines()[-1]
    assert message.startswith(f"error: cannot write the checkpoint {path} after step 3: ")
    assert "the previous one is intact" in message
    assert path.read_bytes() == before
    assert not list(output.glob(".*.tmp.*")), "half a checkpoint was left"
    assert run_main(main, options).status == 0
    assert torch.load(path, weights_only=True)["step"] == 6


@pytest.mark.parametrize("call", ["os.fsync", "torch.save"])
def test_a_disk_that_fills_up_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Network file systems say so as late as when the file is flushed; torch, closing its archive, hides why it could not write."""

    def full(*_: object) -> None:
        try:
            raise OSError(errno.EDQUOT, "No space left on device")
        except OSError as failure:
            if call == "torch.save":
                raise RuntimeError("unexpected pos") from failure
            raise

    config = tiny_config("dino", output=tmp_path)
    networks = build_networks(config, torch.device("cpu"))
    path = tmp_path / "checkpoint.pth"
    path.write_text("previous")
    monkeypatch.setattr(call, full)
    with pytest.raises(ValueError, match="No space left on device; the previous one is intact"):
        Checkpoint(config.train, run_settings(config, []), networks, 10).write(1)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "previous"


@pytest.fixture
def finished(image_folder: Path, tmp_path: Path) -> Path:
    """The folder of a run of six steps that kept them all."""
    return run(image_folder, tmp_path / "run", train__checkpoint_every=1, train__keep_last=6).parent


def test_a_named_checkpoint_is_where_another_folder_starts(
    image_folder: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = finished / "checkpoint_step00000002.pth"
    before = sorted(finished.glob("*.pth"))
    options: dict[str, Any] = {"train__resume": source, "train__checkpoint_every": 1, "train__keep_last": 2}
    run(image_folder, tmp_path / "branch", **options)
    assert any("continuing after step 2" in message for message in caplog.messages)
    assert_equal(weights(tmp_path / "branch"), weights(finished))
    assert sorted(finished.glob("*.pth")) == before, "the run that it came from keeps its checkpoints"
    caplog.clear()
    run(image_folder, tmp_path / "branch", **options)
    assert any("it continues from its own" in message for message in caplog.messages)
    with pytest.raises(ValueError, match=r"step00000002\.pth belongs to .* optim\.lr was 0\.02, is 0\.01"):
        run(image_folder, tmp_path / "other", train__resume=source, optim__lr=0.01)
    with pytest.raises(ValueError, match=r"train\.resume latest: no such file; give auto, never, or a checkpoint"):
        run(image_folder, tmp_path / "other", train__resume="latest")
    with pytest.raises(ValueError, match=r"checkpoint\.pth exists, and train\.resume is never"):
        run(image_folder, finished, train__resume="never")


def damage(path: Path) -> None:
    """As a disk's fault would: also under its second name."""
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1000)


def test_damaged_checkpoints_name_the_next_older_one(image_folder: Path, finished: Path) -> None:
    """And what they say to do leads to the same end."""
    newest, older, oldest = (finished / f"checkpoint{name}.pth" for name in ("", "_step00000005", "_step00000004"))
    expected = weights(finished)
    options: dict[str, Any] = {"train__checkpoint_every": 1, "train__keep_last": 1}
    for damaged, named in ((newest, older), (older, oldest)):
        damage(damaged)
        with pytest.raises(ValueError, match=rf"{damaged.name}: damaged .*older one beside it is .*{named.name}") as caught:
            run(image_folder, finished, **options)
        assert len(str(caught.value).splitlines()) == 1
        assert f"remove {damaged.name} and add --train.resume {named}" in str(caught.value)
        damaged.unlink()
        options["train__resume"] = named
    run(image_folder, finished, **options)
    assert_equal(weights(finished), expected)
    damage(newest)
    with pytest.raises(ValueError, match=r"no older one beside it; remove checkpoint\.pth to start afresh"):
        run(image_folder, finished)


def test_export_writes_both_also_of_a_finished_run(image_folder: Path, tmp_path: Path) -> None:
    checkpoint = run(image_folder, tmp_path / "run", train__seed=7)
    assert not list(tmp_path.rglob("*.safetensors"))
    run(image_folder, tmp_path / "run", train__export=True, train__seed=7)
    content = torch.load(checkpoint, weights_only=True)
    for branch in ("teacher", "student"):
        exported = read_backbone_file(tmp_path / "run" / f"backbone_{branch}.safetensors")
        assert (exported.source.branch, exported.source.sha256) == (branch, file_sha256(checkpoint))
        assert exported.source.epoch == 2
        log = str(tmp_path / "run/log.jsonl")
        stated = (exported.source.recipe, exported.source.pretraining_data, exported.source.log)
        assert stated == ("dino", "/".join(image_folder.parts[-2:]), log)
        assert len(exported.state_dict) > 10
        for name, value in exported.state_dict.items():
            assert torch.equal(value, content[branch][f"backbone.{name}"]), name
    conversion = open_backbone(checkpoint)
    assert (conversion.source.seed, len(conversion.source.recipe_sha256)) == (7, 64)
