"""The fetching command, from a server on this machine to a backbone file."""

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import read_backbone_file
from backbones.spec import ViTSpec
from tables.reference import CHECKPOINTS_FILE, read_checkpoints
from tests.conftest import RunMain
from tests.http_server import Site, serving
from tools.fetch_checkpoint import main

SPEC = ViTSpec(embed_dim=64, depth=1, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)
BACKBONE = "ViT/16, 64 wide, 1 deep"


def checkpoint_bytes() -> bytes:
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in build_backbone(SPEC).state_dict().items()}}, stream)
    return stream.getvalue()


CONTENT = checkpoint_bytes()
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving({"/toy.pth": CONTENT}) as site:
        yield site


def write_table(folder: Path, site: Site, **changes: str) -> Path:
    with CHECKPOINTS_FILE.open(encoding="utf-8", newline="") as stream:
        header = next(csv.reader(stream))
    row = dict.fromkeys(header, "") | {
        "name": "toy",
        "method": "DINO",
        "backbone": BACKBONE,
        "address": f"{site.address}/toy.pth",
        "file_name": "toy.pth",
        "md5": MD5[:8],
        "licence": "CC0-1.0",
        "format": "dino",
        "branch": "teacher",
        "source": "this test",
    }
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, list((row | changes).values())])
    return path


def test_download_verify_convert(site: Site, tmp_path: Path, run_main: RunMain) -> None:
    arguments = ["toy", "--table", write_table(tmp_path, site), "--output", tmp_path / "out"]
    finished = run_main(main, arguments)
    assert finished.status == 0, finished.stderr
    assert "published licence: CC0-1.0" in finished.stdout
    content = read_backbone_file(tmp_path / "out" / "toy.safetensors")
    assert (content.spec, content.source.format, content.source.file_name) == (SPEC, "dino", "toy.pth")
    assert content.source.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert run_main(main, arguments).status == 0
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"md5": "a04e12f8"}, f"md5 is {MD5}, published is a04e12f8"),
        ({"format": "selfpatch"}, "its layout is dino, toy should be selfpatch; not converted"),
        # MoBY's published links are swapped: the layout is right, the network is not.
        ({"backbone": "Swin-T"}, f"its network is {BACKBONE}, toy should be Swin-T; not converted"),
        ({"branch": "encoder_q"}, "the dino layout has no branch 'encoder_q'"),
    ],
)
def test_a_file_that_is_not_what_the_table_says(
    site: Site, tmp_path: Path, run_main: RunMain, changes: dict[str, str], message: str
) -> None:
    finished = run_main(main, ["toy", "--table", write_table(tmp_path, site, **changes), "--output", tmp_path / "out"])
    assert finished.status == 2, finished
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert (tmp_path / "out" / "toy.pth").exists() == ("md5" not in changes)


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_error_page(site: Site, tmp_path: Path, run_main: RunMain, content_type: str) -> None:
    site.files["/toy.pth"] = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"
    site.content_type = content_type
    finished = run_main(main, ["toy", "--table", write_table(tmp_path, site, md5=""), "--output", tmp_path / "out"])
    assert finished.status == 2, finished
    assert "web page" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_an_interrupted_download_is_never_taken_for_the_whole(site: Site, tmp_path: Path, run_main: RunMain) -> None:
    arguments = ["toy", "--table", write_table(tmp_path, site, md5=""), "--output", tmp_path / "out"]
    site.break_after = len(CONTENT) // 2
    finished = run_main(main, arguments)
    assert finished.status == 2
    assert "the same command starts it again" in finished.stderr
    assert not list((tmp_path / "out").iterdir())
    site.break_after = None
    assert run_main(main, arguments).status == 0
    assert len(site.requests) == 2


def test_an_answer_that_is_an_error(site: Site, tmp_path: Path, run_main: RunMain) -> None:
    table = write_table(tmp_path, site, address=f"{site.address}/gone.pth")
    finished = run_main(main, ["toy", "--table", table, "--output", tmp_path / "out"])
    assert finished.status == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "404" in finished.stderr


def test_proxies_are_taken_from_the_environment(
    site: Site, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.address)
    site.files["http://example.invalid/toy.pth"] = CONTENT
    table = write_table(tmp_path, site, address="http://example.invalid/toy.pth")
    finished = run_main(main, ["toy", "--table", table, "--output", tmp_path / "out"])
    assert finished.status == 0, finished.stderr


def test_damaged_earlier_download(site: Site, tmp_path: Path, run_main: RunMain) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT[:-1])
    finished = run_main(main, ["toy", "--table", write_table(tmp_path, site), "--output", tmp_path])
    assert finished.status == 2
    assert "remove it to download it again" in finished.stderr
    assert not site.requests


def test_no_network_is_one_line_with_a_way_out(site: Site, tmp_path: Path, run_main: RunMain) -> None:
    table = write_table(tmp_path, site, address="http://127.0.0.1:9/toy.pth")
    finished = run_main(main, ["toy", "--table", table, "--output", tmp_path / "out"])
    assert finished.status == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "the download failed" in finished.stderr
    assert f"at {tmp_path / 'out' / 'toy.pth'} and give this command again" in finished.stderr


def test_list_and_unknown_names(run_main: RunMain) -> None:
    finished = run_main(main, ["--list"])
    assert finished.status == 0
    lines = finished.stdout.splitlines()
    assert [line.split()[0] for line in (lines[0], *lines[2:])] == ["name", *read_checkpoints()]
    assert "CC-BY-NC-4.0" in lines[2]
    all_of_them = f"--list shows all {len(read_checkpoints())}\n"
    for arguments, message in (
        ([], "error: give the name of a checkpoint; "),
        (["resnet"], "error: no published checkpoint is called 'resnet'; "),
        (["moco_v2_r50"], "error: no published checkpoint is called 'moco_v2_r50'; of a similar name: moco_v2_r50_"),
    ):
        finished = run_main(main, arguments)
        assert finished.status == 2
        assert finished.stderr.startswith(message)
        assert finished.stderr.endswith(all_of_them)
        assert len(finished.stderr.splitlines()) == 1
