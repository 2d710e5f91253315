"""A server on this machine that answers as Google Drive does, and what sends gdown's requests to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

PAGES = "drive.google.com"
FILES = "drive.usercontent.google.com"
CONFIRM = (
    "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    '<p class="uc-warning-caption">Google Drive can\'t scan this file for viruses.</p>'
    f'<form id="download-form" action="https://{FILES}/download" method="get">'
    '<input type="submit" id="uc-download-link" value="Download anyway"/>'
    '<input type="hidden" name="id" value="ID"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"></form></body></html>'
)
QUOTA = (
    "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>"
    '<p class="uc-error-caption">Sorry, you can\'t view or download this file at this time.</p>'
    '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>'
)
PAGE = "<!DOCTYPE html><html><head><title>{}</title></head><body>{}</body></html>"


class Drive(ThreadingHTTPServer):
    """The server.

    Attributes:
        files: the bytes of each file by its id.
        fault: what it does instead of answering well; see ``Answer.do_GET``.
        log: host and query of every request.
        starts: where each answer with a file began.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.fault = ""
        self.log: list[tuple[str, dict[str, list[str]]]] = []
        self.starts: list[int] = []
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class Answer(BaseHTTPRequestHandler):
    """One request: a redirect to the host of files, its page that asks for confirmation, then the file."""

    server: Drive

    def do_GET(self) -> None:
        """Answer, or do what the fault says."""
        host, _, rest = self.path.lstrip("/").partition("/")
        query = parse_qs(urlsplit(rest).query)
        self.server.log.append((host, query))
        file_id, fault = query["id"][0], self.server.fault
        if fault == "404" or file_id not in self.server.files:
            return self._page(PAGE.format("Error 404 (Not Found)!!1", "That's an error."), status=404)
        if fault == "500":
            return self._page(PAGE.format("Error 500", "That's an error."), status=500)
        if fault == "bare 404":
            self.send_response(404)
            return self.end_headers()
        if fault == "silent":
            self.server.closing.wait(20)
            return None
        if host == PAGES:
            self.send_response(303)
            self.send_header("Location", f"https://{FILES}/download?id={file_id}&export=download")
            return self.end_headers()
        if fault in ("quota", "sign in"):
            return self._page(QUOTA if fault == "quota" else PAGE.format("Sign in", "Use your Google Account"))
        if "confirm" not in query or fault == "confirms for ever":
            return self._page(CONFIRM.replace('"ID"', f'"{file_id}"'))
        return self._file(self.server.files[file_id], fault)

    def _page(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _file(self, data: bytes, fault: str) -> None:
        if fault == "page as file":
            data = PAGE.format("Sign in", "to your network").encode()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", 'attachment; filename="checkpoints.zip"')
        self.send_header("Last-Modified", "Sun, 24 Sep 2023 08:00:00 GMT")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if fault != "cut, size unknown":
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut = fault.startswith("cut") or (fault == "broken off once" and not start)
        self.wfile.write(data[start : start + (len(data) - start) // 2] if cut else data[start:])
        if fault == "stalls":
            self.server.closing.wait(20)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def drive_server(patch: pytest.MonkeyPatch) -> Iterator[Drive]:
    """Run the server, and send to it what this process asks Google Drive for; nobody else can be asked."""
    from requests.adapters import HTTPAdapter

    server, send = Drive(), HTTPAdapter.send

    def to_this_machine(self: Any, request: Any, **options: Any) -> Any:
        asked = request.url
        url = urlsplit(asked)
        assert url.scheme == "https" and url.hostname in (PAGES, FILES), asked
        request.url = f"http://127.0.0.1:{server.server_port}/{url.hostname}{url.path}?{url.query}"
        response = send(self, request, **options | {"proxies": {}})
        request.url = response.url = asked
        return response

    patch.setattr(HTTPAdapter, "send", to_this_machine)
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
