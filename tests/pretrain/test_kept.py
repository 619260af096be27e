"""Older checkpoints: second names for the same bytes, and which are removed."""

import os
from pathlib import Path

import pytest

from pretrain.kept import link_or_copy, name_by_epoch, name_by_step, prune


def test_names_sort_by_age(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    assert name_by_step(path, 40).name == "checkpoint_step00000040.pth"
    assert name_by_epoch(path, 10).name == "checkpoint_epoch0010.pth"


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
    link_or_copy(path, kept)
    assert kept.read_text() == "new"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["checkpoint.pth", "kept.pth"]


@pytest.mark.parametrize(
    ("newest", "staying"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (3, ["a", "b", "c"]), (9, ["a", "b", "c"])]
)
def test_the_oldest_go_and_nobody_elses(tmp_path: Path, newest: int, staying: list[str]) -> None:
    for name in ("a", "b", "c", "foreign"):
        (tmp_path / name).touch()
    assert prune(tmp_path, ["a", "b", "c"], newest) == staying
    assert sorted(item.name for item in tmp_path.iterdir()) == [*staying, "foreign"]


def test_one_that_is_gone_already_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    assert prune(tmp_path, ["a", "b"], 1) == ["b"]
