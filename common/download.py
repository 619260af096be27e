"""Downloading a file so that it is whole, the right one, and need not start again after an interruption.

The bytes collect in `NAME.partial`; beside it `NAME.partial.version` says which version of which address they are. Proxies are taken
from the environment (http_proxy, https_proxy, no_proxy), as urllib does.
"""

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60
_PROGRESS_INTERVAL_S = 5.0
_MIB = 2**20


class DownloadError(ValueError):
    """A download that failed, or brought something else than what was wanted."""


def download(address: str, target: Path, md5: str = "") -> None:
    """Download to `target`, which appears only when it is whole and verified; continue what an earlier call began.

    A download is continued only where the server names a version of the file (ETag or Last-Modified) that is still the same.

    Args:
        address: http or https.
        target: Where to; parent folders are made. An existing file is replaced.
        md5: The digest, or its first digits as some authors publish it; empty if unknown.

    Raises:
        DownloadError: Without a connection, for an error or a web page as the answer, for an interrupted download, or for another
            digest; one line that says what to do.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _Partial(address=address, data=target.with_name(f"{target.name}.partial"))
    try:
        _fetch(partial)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{address}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        received = f"; {partial.size() / _MIB:.1f} MiB are kept, the same command continues" if partial.size() else ""
        raise DownloadError(f"{address}: no connection, or it broke ({reason}){received}") from error
    if difference := md5_difference(partial.data, md5):
        partial.remove()  # it can never be continued to the right file
        raise DownloadError(f"{address}: {difference}; removed. The published file, or the way to it, has changed")
    with partial.data.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.data.replace(target)
    partial.version.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Partial:
    """An unfinished download."""

    address: str
    data: Path

    @property
    def version(self) -> Path:
        return self.data.with_name(f"{self.data.name}.version")

    def size(self) -> int:
        return self.data.stat().st_size if self.data.is_file() else 0

    def known_version(self) -> str:
        """The server's name for the version of the bytes at hand; empty where they are of another address, or unnamed."""
        if not self.size() or not self.version.is_file():
            return ""
        address, _, version = self.version.read_text(encoding="utf-8").partition("\n")
        return version.strip() if address == self.address else ""

    def begin(self, version: str) -> None:
        """Throw away what is there."""
        self.data.unlink(missing_ok=True)
        self.version.write_text(f"{self.address}\n{version}\n", encoding="utf-8")

    def remove(self) -> None:
        self.data.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)


def md5_difference(path: Path, md5: str) -> str:
    """How a file's MD5 digest differs from the published digits (the whole digest or its first ones); empty if it does not."""
    if not md5:
        return ""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    return "" if found.startswith(md5.lower()) else f"its md5 is {found}, published is {md5}"


def _fetch(partial: _Partial) -> None:
    version = partial.known_version()
    headers = {"User-Agent": "PatchBench"}
    if version:
        headers |= {"Range": f"bytes={partial.size()}-", "If-Range": version}
    request = urllib.request.Request(partial.address, headers=headers)
    try:
        # urlopen would keep the proxies of its first call in the process.
        response = urllib.request.build_opener().open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not version:
            raise
        # Nothing is left after these bytes: they are whole, and only the rename was missing.
        if error.headers.get("Content-Range") == f"bytes */{partial.size()}":
            return
        partial.remove()
        _fetch(partial)
        return
    with response:
        if response.headers.get_content_type() == "text/html":
            raise DownloadError(
                f"{partial.address}: a web page instead of the file; open the address in a browser, and convert what it gives"
            )
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT and _starts_at(response, partial.size())
        if not continues:
            # A weak ETag does not promise the same bytes.
            tag = response.headers.get("ETag", "")
            partial.begin(response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag)
        length = response.headers.get("Content-Length")
        total = partial.size() + int(length) if length is not None else None
        with partial.data.open("ab") as stream:
            _copy(response, stream, partial.size(), total)
    if total is not None and partial.size() != total:
        raise DownloadError(
            f"{partial.address}: broke off after {partial.size()} of {total} bytes, which are kept; the same command continues"
        )


def _starts_at(response: http.client.HTTPResponse, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _copy(response: http.client.HTTPResponse, stream: IO[bytes], offset: int, total: int | None) -> None:
    """Append the answer to the file, with progress."""
    start = last = time.monotonic()
    done = offset
    while chunk := response.read(_CHUNK_BYTES):
        stream.write(chunk)
        done += len(chunk)
        now = time.monotonic()
        if now - last < _PROGRESS_INTERVAL_S:
            continue
        last = now
        speed = (done - offset) / (now - start)
        rest = f" of {total / _MIB:.0f} MiB, {(total - done) / speed:.0f} s left" if total is not None else " MiB"
        logger.info("%.0f%s, %.1f MiB/s", done / _MIB, rest, speed / _MIB)
