"""What a result says about its data and its surroundings."""

import subprocess
import sys
from pathlib import Path

import torch

from eval.provenance import SAMPLE_MARKER, describe_dataset, describe_environment, peak_memory_bytes

REPOSITORY = Path(__file__).resolve().parents[2]


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


def test_peak_memory_is_this_process_alone() -> None:
    """A process that a large one starts does not report its parent's memory (getrusage does)."""
    held = bytearray(600 * 2**20)
    code = "import torch; from eval.provenance import peak_memory_bytes as p; print(p(torch.device('cpu')))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert len(held) < peak_memory_bytes(torch.device("cpu"))
    assert 50 * 2**20 < int(printed) < peak_memory_bytes(torch.device("cpu"))
