"""What a result says about its data and its surroundings."""

from pathlib import Path

import torch

from eval.provenance import SAMPLE_MARKER, describe_dataset, describe_environment


def test_coverage_follows_size_restriction_and_marker(tmp_path: Path) -> None:
    items = ["b", "a"]
    assert describe_dataset(tmp_path, "D", "val", items, full_size=2).coverage == "full"
    assert describe_dataset(tmp_path, "D", "val", items, full_size=3).coverage == "subset"
    assert describe_dataset(tmp_path, "D", "val", items, full_size=2, restricted=True).coverage == "subset"
    (tmp_path / SAMPLE_MARKER).write_text("{}")
    assert describe_dataset(tmp_path, "D", "val", items, full_size=2).coverage == "sample"


def test_the_fingerprint_is_of_the_set_of_items(tmp_path: Path) -> None:
    first, second, other = (
        describe_dataset(tmp_path, "D", "val", items, full_size=2).listing_sha256
        for items in (["a", "b"], ["b", "a"], ["a", "c"])
    )
    assert first == second != other


def test_environment_names_versions_and_code() -> None:
    environment = describe_environment(torch.device("cpu"))
    assert environment.packages["torch"] == torch.__version__.split("+")[0]
    assert environment.device == "cpu"
    assert environment.code
