"""The interactive page: adaptors tried in the browser, before and after side by side.

Standard library only, and the page fetches nothing from elsewhere. It is one file, asks for ``/options`` once, and
posts each drawing to ``/compare``, which answers with lines of JSON: how far it is, then ``result`` or ``error``.
"""

import json
import os
import socketserver
import sys
import threading
import traceback
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigError, FairAdaptorError
from .evaluation.studio import Studio

PAGE = Path(__file__).parent / "evaluation" / "app.html"
MAX_BODY = 65536
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LINES = "application/x-ndjson"


def serve(
    pipe: Any,
    *,
    base: str,
    adaptors: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = True,
) -> None:
    """Show the page until Ctrl-C.

    Args:
        pipe: a Stable Diffusion pipeline without adaptors.
        base: its name, see ``Studio``.
        adaptors: names, folders or Hub ids to offer beside the registry's for the base.
        host: address to listen on; others than this machine's own can be reached by whoever is in the network.
        port: 0 for any that is free.
        open_browser: show the page in the user's browser.

    Raises:
        FairAdaptorError: an adaptor cannot be loaded, or the address cannot be listened on.
    """
    studio = Studio(pipe, base=base, adaptors=adaptors)
    with AppServer(studio, host=host, port=port) as server:
        print(f"The page is {server.url} (Ctrl-C ends it)", flush=True)
        if host not in LOOPBACK:
            print(f"Whoever can reach {host} can use it: there is no password", file=sys.stderr)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        studio.close()


def leave() -> None:
    """End the process, also where a thread is still drawing: it would abort while Python takes its modules down."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class AppServer(socketserver.ThreadingTCPServer):
    """The page of one studio; each browser's request has a thread.

    Attributes:
        studio: what draws.
        url: where the page is.
        local: whether only this machine can reach it.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, studio: Studio, *, host: str = "127.0.0.1", port: int = 0):
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}. Try another --port") from error
        self.studio, self.local = studio, host in LOOPBACK
        self.url = f"http://{host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that go away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: AppServer
    server_version, sys_version = "fair-adaptors", ""
    timeout = 60  # seconds that a browser may keep a thread waiting

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._meant_for_us():
            self._send(403, "text/plain", b"This page is for this machine only.\n")
        elif path == "/":
            self._send(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif path == "/options":
            self._send(200, "application/json", json.dumps(self.server.studio.options).encode())
        else:
            self._send(404, "text/plain", b"There is nothing here.\n")

    def do_POST(self) -> None:
        if not self._meant_for_us() or urlsplit(self.path).path != "/compare":
            self._send(403, "text/plain", b"Only /compare of this machine's own page takes requests.\n")
            return
        try:
            request = self.server.studio.read(self._json())
        except FairAdaptorError as error:
            self._send(400, LINES, json.dumps({"error": str(error)}).encode())
            return
        self._begin(200, LINES)
        self._tell(self._answer(request))

    def _answer(self, request: Any) -> dict[str, Any]:
        try:
            return {"result": self.server.studio.compare(request, self._tell)}
        except FairAdaptorError as error:
            return {"error": str(error)}
        except ConnectionError:  # the page was closed, or asked to stop
            raise
        except Exception as error:
            traceback.print_exc()
            said = str(error).strip().partition("\n")[0]
            return {"error": f"drawing failed: {said or type(error).__name__} (more in the terminal)"}

    def _meant_for_us(self) -> bool:
        """Tell whether the browser means this machine, and not a foreign name that was pointed at it."""
        return not self.server.local or urlsplit(f"//{self.headers.get('Host', '')}").hostname in LOOPBACK

    def _json(self) -> Any:
        """Read the body. Other pages cannot send this content type without asking, which nobody answers."""
        if self.headers.get_content_type() != "application/json":
            raise ConfigError("a request is JSON: Content-Type: application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise ConfigError(f"a request has a length of at most {MAX_BODY} bytes")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the request is no JSON: {error}") from error

    def _tell(self, event: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(event).encode() + b"\n")

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self._begin(status, kind, length=len(body))
        self.wfile.write(body)

    def _begin(self, status: int, kind: str, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal quiet."""
