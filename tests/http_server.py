"""A server on 127.0.0.1 that can do what download servers do, and break off."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, and what was asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"1"'
    """Names the version; empty for a server that names none."""
    content_type: str = "application/octet-stream"
    break_after: int | None = None
    """Bytes of a body after which the connection is closed."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Site]:
    """Serve files by path, with byte ranges."""
    site = Site(files=files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.requests.append((self.path, wanted))
            if self.path not in site.files:
                self.send_error(404)
                return
            content = site.files[self.path]
            start = 0
            if wanted and self.headers.get("If-Range") == site.etag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if site.etag:
                self.send_header("ETag", site.etag)
            self.send_header("Content-Type", site.content_type)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = None if site.break_after is None else start + site.break_after
            self.wfile.write(content[start:stop])

        def log_message(self, *arguments: object) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
