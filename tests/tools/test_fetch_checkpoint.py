"""The command that fetches a checkpoint, from a server on this machine to a backbone file."""

import csv
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from backbones.file import read_backbone_file
from backbones.spec import ViTSpec
from tables.reference import CHECKPOINTS_FILE, read_checkpoints
from tests.conftest import Finished, RunMain
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


class Handler(BaseHTTPRequestHandler):
    server: "Site"

    def do_GET(self) -> None:
        self.server.num_requests += 1
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write((content or b"")[: self.server.break_after])

    def log_message(self, *arguments: object) -> None:
        pass


class Site(ThreadingHTTPServer):
    """A server on 127.0.0.1 with files by their path; as a proxy, by their whole address."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = {"/toy.pth": CONTENT}
        self.break_after: int | None = None  # number of bytes after which the connection is closed
        self.num_requests = 0


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Site() as site:
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
        weights = {"md5": MD5[:8], "licence": "CC0-1.0", "format": "dino", "branch": "teacher"}
        row = dict.fromkeys(header, "") | own | weights | changes
        path = tmp_path / "table.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, list(row.values())])
        return run_main(main, ["toy", "--table", path, "--output", tmp_path / "out"])

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
        ({"md5": "a04e12f8"}, f"md5 is {MD5}, the published one is a04e12f8", False),
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
    site.files["/toy.pth"] = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"
    assert "web page" in fetch(md5="").mistake()
    site.files["/toy.pth"], site.break_after = CONTENT, len(CONTENT) // 2
    assert "the same command starts it again" in fetch(md5="").mistake()
    assert not list((tmp_path / "out").iterdir())
    site.break_after = None
    monkeypatch.setenv("http_proxy", site.address)
    site.files = {"http://example.invalid/toy.pth": CONTENT}
    fetch(address="http://example.invalid/toy.pth", md5="").output()
    assert site.num_requests == 3


def test_list_and_unknown_names(run_main: RunMain) -> None:
    lines = run_main(main, ["--list"]).output().splitlines()
    assert [line.split()[0] for line in (lines[0], *lines[2:])] == ["name", *read_checkpoints()]
    assert "CC-BY-NC-4.0" in lines[2]
    for arguments, message in (
        ([], "error: give the name of a checkpoint; "),
        (["resnet"], "error: no published checkpoint is called 'resnet'; "),
        (["moco_v2_r50"], "error: no published checkpoint is called 'moco_v2_r50'; of a similar name: moco_v2_r50_"),
    ):
        text = run_main(main, arguments).mistake()
        assert text.startswith(message)
        assert text.endswith(f"--list shows all {len(read_checkpoints())}")
