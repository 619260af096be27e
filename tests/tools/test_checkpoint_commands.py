"""The commands that convert a checkpoint and that fetch a published one, from a server on this machine to a backbone file."""

import csv
import hashlib
import io
import json
import shlex
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image

from backbones.build import build_backbone
from backbones.file import load_backbone, read_backbone_file
from backbones.spec import ViTSpec
from common.files import file_sha256
from tables.reference import CHECKPOINTS_FILE, read_checkpoints
from tests.conftest import Finished, RunMain
from tools.convert_checkpoint import main as convert
from tools.eval_all import EvalAllOptions
from tools.eval_all import _conversion_command as conversion_command
from tools.fetch_checkpoint import main as fetch_checkpoint

SPEC = ViTSpec(embed_dim=64, depth=1, num_heads=1, patch_size=16, image_size=64, class_token=True, final_norm=True)


@pytest.fixture
def with_head(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({**build_backbone(SPEC).state_dict(), "head.weight": torch.ones(3, 64), "head.bias": torch.ones(3)}, path)
    return path


def test_report_and_file(with_head: Path, tmp_path: Path, run_main: RunMain) -> None:
    output, image, written = tmp_path / "model.safetensors", tmp_path / "image.png", tmp_path / "reports" / "model.json"
    Image.effect_noise((80, 64), 60).save(image)
    report = run_main(convert, [with_head, "--check", image, "--json", written]).output()
    digest = f"sha256 of checkpoint: {file_sha256(with_head)}"
    shown = ("architecture", "dropped on purpose: 2: 2 by head.*", digest, "warning: 3 of 3 normalisation layers")
    assert [text for text in shown if text not in report] == []
    assert not output.exists()
    facts = json.loads(run_main(convert, [with_head, output, "--json"]).output())
    assert (facts["format"], facts["tensors_dropped_by_rule"], facts["tensors_left_over"]) == ("timm", {"head.*": 2}, 0)
    assert facts["parameters"] == sum(tensor.numel() for tensor in build_backbone(SPEC).state_dict().values())
    assert load_backbone(output).spec == SPEC
    assert json.loads(written.read_text())["format"] == "timm"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_to_another_layout_and_back(with_head: Path, tmp_path: Path, suffix: str, run_main: RunMain) -> None:
    backbone, exported, again = tmp_path / "a.safetensors", tmp_path / f"b{suffix}", tmp_path / "c.safetensors"
    for arguments in ([with_head, backbone], [backbone, exported, "--to", "dino"], [exported, again]):
        run_main(convert, arguments).output()
    assert "is a backbone file already" in run_main(convert, [backbone, tmp_path / "d.safetensors"]).mistake()
    weights, found = (load_backbone(path).state_dict() for path in (backbone, again))
    assert found.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())


def test_mistakes_are_one_line(with_head: Path, tmp_path: Path, run_main: RunMain) -> None:
    output, cut = tmp_path / "out.safetensors", tmp_path / "cut.pth"
    cut.write_bytes(with_head.read_bytes()[:2000])
    for arguments, message in (
        ((tmp_path / "absent.pth", output), "absent.pth"),
        ((cut, output), "cut.pth"),
        ((with_head, tmp_path / "out.pth"), ".safetensors"),
        ((with_head, output, "--format", "selfpatch"), "selfpatch"),
        ((with_head, output, "--branch", "student"), "student"),
        ((with_head, output, "--heads", "3"), "--heads"),
        ((with_head, output, "--to", "selfpatch"), "class_token=False"),
        ((with_head, with_head, "--to", "timm"), "checkpoint itself"),
        (("--json", with_head, output), "must end in .json"),
        ((with_head, output, "--check", tmp_path / "no.png"), "no.png"),
        ((with_head, "/proc/nowhere/out.safetensors"), "/proc/nowhere"),
    ):
        assert message in run_main(convert, arguments).mistake()
        assert not output.exists()


def test_a_refusal_holds_a_command_that_works(with_head: Path, tmp_path: Path, run_main: RunMain) -> None:
    """And the options do for `eval_all.sh`, which shares them, what they do here."""
    wrapped, output = tmp_path / "wrapped.pth", tmp_path / "out.safetensors"
    state = torch.load(with_head, weights_only=True)
    torch.save({"run": {f"critic.{name.replace('mlp', 'ffn')}": tensor for name, tensor in state.items()}}, wrapped)
    options = ["--key", "run", "--prefix", "critic.", "--map", "ffn=mlp"]
    message = run_main(convert, [wrapped, output]).mistake()
    command = shlex.split(message.partition("; try: python tools/convert_checkpoint.py ")[2])
    assert run_main(convert, [*command, output]).mistake().count("names that no rule of the layout covers: blocks.0.ffn") == 1
    report = run_main(convert, [wrapped, output, *options]).output()
    assert "attention heads: 1 assumed, one per 64 channels" in report
    assert load_backbone(output).spec == SPEC
    shared = EvalAllOptions(checkpoint=wrapped, key="run", prefix="critic.", map=("ffn=mlp", "a=b"))
    assert conversion_command(shared, output).endswith(f"{output} {shlex.join([*options, '--map', 'a=b'])}")


BACKBONE = "ViT/16, 64 wide, 1 deep"
STREAM = io.BytesIO()
torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in build_backbone(SPEC).state_dict().items()}}, STREAM)
CONTENT = STREAM.getvalue()


class Site(ThreadingHTTPServer):
    """A server on 127.0.0.1 with files by their path; as a proxy, by their whole address."""

    files: ClassVar = {"/toy.pth": CONTENT}
    break_after: int | None = None  # number of bytes after which the connection is closed
    num_requests = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.num_requests += 1
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write((content or b"")[: self.server.break_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Site(("127.0.0.1", 0), Handler) as site:
        threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
        yield site
        site.shutdown()


Fetch = Callable[..., Finished]


@pytest.fixture
def fetch(site: Site, tmp_path: Path, run_main: RunMain) -> Fetch:
    """Fetch the checkpoint of a table's only row, with some cells changed, into `tmp_path/out`."""

    def fetch_toy(**changes: str) -> Finished:
        with CHECKPOINTS_FILE.open(encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream))
        own = {"name": "toy", "backbone": BACKBONE, "file_name": "toy.pth", "address": f"{site.address}/toy.pth"}
        weights = {"md5": hashlib.md5(CONTENT).hexdigest()[:8], "licence": "CC0-1.0", "format": "dino", "branch": "teacher"}
        row = dict.fromkeys(header, "") | own | weights | changes
        path = tmp_path / "table.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, list(row.values())])
        return run_main(fetch_checkpoint, ["toy", "--table", path, "--output", tmp_path / "out"])

    return fetch_toy


def test_download_verify_convert(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    assert "published licence: CC0-1.0" in fetch().output()
    content = read_backbone_file(tmp_path / "out" / "toy.safetensors")
    assert (content.spec, content.source.format, content.source.file_name) == (SPEC, "dino", "toy.pth")
    assert content.source.sha256 == hashlib.sha256(CONTENT).hexdigest()
    fetch().output()
    (tmp_path / "out" / "toy.pth").write_bytes(CONTENT[:-1])
    assert "remove it to download it again" in fetch().mistake()
    assert site.num_requests == 1


@pytest.mark.parametrize(
    ("changes", "message", "stays"),
    [
        ({"md5": "a04e12f8"}, ", the published one is a04e12f8", False),
        ({"format": "selfpatch"}, "its layout is dino, toy should be selfpatch; not converted", True),
        # MoBY's published links are swapped: the layout is right, the network is not.
        ({"backbone": "Swin-T"}, f"its network is {BACKBONE}, toy should be Swin-T; not converted", True),
        ({"branch": "encoder_q"}, "the dino layout has no branch 'encoder_q'", True),
        ({"address": "SITE/gone.pth"}, "404", False),
        ({"address": "http://127.0.0.1:9/toy.pth"}, "the download failed", False),
    ],
)
def test_a_file_that_is_absent_or_not_what_the_table_says(
    site: Site, fetch: Fetch, tmp_path: Path, changes: dict[str, str], message: str, stays: bool
) -> None:
    text = fetch(**{name: value.replace("SITE", site.address) for name, value in changes.items()}).mistake()
    assert message in text
    assert [path.name for path in (tmp_path / "out").glob("*")] == (["toy.pth"] if stays else [])
    assert stays or f"to {tmp_path / 'out' / 'toy.pth'} and give this command again" in text


def test_neither_an_error_page_nor_an_interrupted_download_is_kept_and_proxies_are_used(
    site: Site, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files = {"/toy.pth": b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"}
    assert "web page" in fetch(md5="").mistake()
    site.files, site.break_after = Site.files, len(CONTENT) // 2
    assert "the same command starts it again" in fetch(md5="").mistake()
    assert not list((tmp_path / "out").iterdir())
    site.break_after = None
    monkeypatch.setenv("http_proxy", site.address)
    site.files = {"http://example.invalid/toy.pth": CONTENT}
    fetch(address="http://example.invalid/toy.pth", md5="").output()
    assert site.num_requests == 3


def test_list_and_unknown_names(run_main: RunMain) -> None:
    lines = run_main(fetch_checkpoint, ["--list"]).output().splitlines()
    assert [line.split()[0] for line in (lines[0], *lines[2:])] == ["name", *read_checkpoints()]
    assert "CC-BY-NC-4.0" in lines[2]
    for arguments, message in (
        ([], "error: give the name of a checkpoint; "),
        (["resnet"], "error: no published checkpoint is called 'resnet'; "),
        (["moco_v2_r50"], "error: no published checkpoint is called 'moco_v2_r50'; of a similar name: moco_v2_r50_"),
    ):
        text = run_main(fetch_checkpoint, arguments).mistake()
        assert text.startswith(message)
        assert text.endswith(f"--list shows all {len(read_checkpoints())}")
