"""Downloads against a server on this machine: whole, verified, continued, or one line."""

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.download import DownloadError, download, md5_difference
from tests.http_server import Site, serving

CONTENT = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving({"/file.pth": CONTENT}) as site:
        yield site


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("md5", ["", MD5, MD5[:8], MD5[:6].upper()])
def test_whole_and_verified(site: Site, tmp_path: Path, md5: str) -> None:
    target = tmp_path / "new" / "file.pth"
    download(f"{site.address}/file.pth", target, md5)
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["file.pth"]


def test_wrong_md5_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"md5 is {MD5}, published is a04e12f8; removed"):
        download(f"{site.address}/file.pth", tmp_path / "file.pth", "a04e12f8")
    assert names(tmp_path) == []


def test_interrupted_download_continues(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    site.break_after = 100_000
    for kept in (100_000, 200_000):
        with pytest.raises(DownloadError, match=f"broke off after {kept} of 300000 bytes.*the same command continues"):
            download(f"{site.address}/file.pth", target, MD5)
        assert names(tmp_path) == ["file.pth.partial", "file.pth.partial.version"]
    site.break_after = None
    download(f"{site.address}/file.pth", target, MD5)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert names(tmp_path) == ["file.pth"]


@pytest.mark.parametrize("change", ["another version", "no version", "weak version", "another address"])
def test_bytes_of_different_files_are_never_joined(site: Site, tmp_path: Path, change: str) -> None:
    """Without a digest nobody would notice."""
    target = tmp_path / "file.pth"
    site.break_after = 100_000
    if change in ("no version", "weak version"):
        site.etag = "" if change == "no version" else 'W/"1"'
    with pytest.raises(DownloadError):
        download(f"{site.address}/file.pth", target)
    site.break_after = None
    other = CONTENT[::-1]
    site.files |= {"/file.pth": other, "/other.pth": other}
    if change == "another version":
        site.etag = '"2"'
    download(f"{site.address}/{'other' if change == 'another address' else 'file'}.pth", target)
    assert target.read_bytes() == other


def test_killed_before_the_rename(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.pth.partial").write_bytes(CONTENT)
    (tmp_path / "file.pth.partial.version").write_text(f'{site.address}/file.pth\n"1"\n')
    download(f"{site.address}/file.pth", tmp_path / "file.pth", MD5)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == ["bytes=300000-"]


def test_more_bytes_than_the_file_has(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.pth.partial").write_bytes(CONTENT + b"more")
    (tmp_path / "file.pth.partial.version").write_text(f'{site.address}/file.pth\n"1"\n')
    download(f"{site.address}/file.pth", tmp_path / "file.pth", MD5)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_web_page_instead_of_the_file(site: Site, tmp_path: Path) -> None:
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="a web page instead of the file; open the address in a browser"):
        download(f"{site.address}/file.pth", tmp_path / "file.pth")
    assert names(tmp_path) == []


def test_absent_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404 Not Found"):
        download(f"{site.address}/absent.pth", tmp_path / "file.pth")
    assert names(tmp_path) == []


def test_no_connection(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(DownloadError, match="no connection") as caught:
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/file.pth", tmp_path / "file.pth")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_proxy_of_the_environment(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    site.files["http://checkpoints.invalid/file.pth"] = CONTENT
    download("http://checkpoints.invalid/file.pth", tmp_path / "file.pth", MD5)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_md5_difference(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert md5_difference(path, "") == md5_difference(path, MD5[:3]) == ""
    assert MD5 in md5_difference(path, "0" * 32)
