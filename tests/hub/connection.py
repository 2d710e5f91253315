"""A connection to the server: which request it is, who asks, what goes wrong."""

import json
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .faults import Faults
from .repos import Repository

_REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    (name, method, re.compile(pattern))
    for name, method, pattern in (
        ("whoami", "GET", r"/api/whoami-v2"),
        ("create", "POST", r"/api/repos/create"),
        ("yaml", "POST", r"/api/validate-yaml"),
        ("list", "GET", r"/api/models"),
        ("preupload", "POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)"),
        ("commit", "POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)"),
        ("tag", "POST", rf"/api/models/{_REPO}/tag/(?P<revision>.+)"),
        ("branch", "POST", rf"/api/models/{_REPO}/branch/(?P<revision>.+)"),
        ("refs", "GET", rf"/api/models/{_REPO}/refs"),
        ("tree", "GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)"),
        ("info", "GET", rf"/api/models/{_REPO}(/revision/(?P<revision>.+))?"),
        ("batch", "POST", rf"/{_REPO}\.git/info/lfs/objects/batch"),
        ("put", "PUT", rf"/lfs/{_REPO}/(?P<sha256>[0-9a-f]{{64}})"),
        ("large", "GET", rf"/lfs/{_REPO}/(?P<sha256>[0-9a-f]{{64}})"),
        ("head", "HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
        ("get", "GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    )
]
_WRITES = {"preupload", "commit", "tag", "branch", "batch"}


@dataclass
class Hub:
    """The state of the server.

    Attributes:
        tokens: names of users by token; each user owns the namespace of that name and those in ``organisations``.
        admitted: users that may read gated repositories.
        log: every request: its name and its repository; ``gave up`` where a client hung up on an answer.
        starts: of every file that was asked for in part, its repository and where that part begins.
    """

    root: Path
    tokens: dict[str, str] = field(default_factory=dict)
    organisations: dict[str, set[str]] = field(default_factory=dict)
    admitted: set[str] = field(default_factory=set)
    faults: Faults = field(default_factory=Faults)
    repositories: dict[str, Repository] = field(default_factory=dict)
    log: list[tuple[str, str | None]] = field(default_factory=list)
    starts: list[tuple[str, int]] = field(default_factory=list)
    before_commit: Callable[[str], object] = lambda repo_id: None
    url: str = ""
    signature: str = field(default_factory=secrets.token_hex)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def owns(self, user: str | None, namespace: str) -> bool:
        """Tell whether a user may write there."""
        return user is not None and (namespace == user or namespace in self.organisations.get(user, ()))

    def requests(self, repo_id: str) -> list[str]:
        """Return the names of the requests about a repository, in their order."""
        return [name for name, owner in self.log if owner == repo_id]


class Answer(Exception):
    """What is answered; raised, so that a check may end a request anywhere."""

    def __init__(self, status: int, body: Any = b"", **headers: str):
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def refusal(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)


class Connection(BaseHTTPRequestHandler):
    """One connection; what is answered to a request of a name is the method of that name."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        """Answer a request, or do what its fault says."""
        self.target = urlsplit(self.path)
        self.payload = self._read()
        name = self._find_route()
        if name is None:
            return self._send(Answer(404, {"error": f"no route for {self.command} {self.target.path}"}))
        repo_id = self.groups.get("repo")
        if name == "create":
            body = json.loads(self.payload)
            repo_id = f"{body.get('organization') or self.hub.tokens.get(self.token() or '')}/{body['name']}"
        self.hub.log.append((name, repo_id))
        fault = self.hub.faults.take(repo_id, name)
        if fault in ("500", "502", "503"):
            return self._send(Answer(int(fault), {"error": "the server is not well"}))
        if fault == "429":
            return self._send(Answer(429, {"error": "too many requests"}, Retry_After="3"))
        if fault == "garbage":
            return self._send(Answer(200, b"<html>Please log in to this network</html>", Content_Type="text/html"))
        if fault == "hang":
            self.hub.closing.wait(60)
        if fault in ("hang", "drop"):
            return self._close()
        try:
            self._authorise(name)
            answer = getattr(self, "_" + name)()
        except Answer as raised:
            answer = raised
        return self._close() if fault == "lost" else self._send(answer, fault)

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def _find_route(self) -> str | None:
        for name, method, pattern in ROUTES:
            if method == self.command and (found := pattern.fullmatch(unquote(self.target.path))):
                self.groups = {key: value for key, value in found.groupdict().items() if value}
                return name
        return None

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _close(self) -> None:
        self.close_connection = True

    def _send(self, answer: Answer, fault: str | None = None) -> None:
        body = answer.body
        if fault == "wrong bytes":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault == "truncated":
            body = body[: len(body) // 2]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if fault == "endless":
            return self._send_without_end()
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault in ("cut", "stall") else body)
        if fault == "stall":
            self.wfile.flush()
            self.hub.closing.wait(60)
        if fault in ("cut", "stall"):
            self._close()

    def _send_without_end(self) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(1_000):
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except ConnectionError:
            self.hub.log.append(("gave up", self.groups.get("repo")))
        self._close()

    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def user(self) -> str | None:
        token = self.token()
        if token is not None and token not in self.hub.tokens:
            raise Answer(
                401,
                {"error": "Invalid username or password."},
                X_Error_Message="Invalid credentials in Authorization header",
            )
        return self.hub.tokens[token] if token else None

    def _authorise(self, name: str) -> None:
        """Refuse as the Hub does: what may not be seen is as if it were not there."""
        if name in ("put", "large"):
            if parse_qs(self.target.query).get("signature") != [self.hub.signature]:
                raise refusal(403, "", "the address is not signed")
            return
        user = self.user()
        if "repo" not in self.groups:
            return
        repository = self.hub.repositories.get(self.groups["repo"])
        owner = self.hub.owns(user, self.groups["repo"].split("/")[0])
        if repository is None or (repository.private and not owner):
            raise refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        if name in ("get", "head") and repository.gated and not owner and user not in self.hub.admitted:
            raise refusal(403 if user else 401, "GatedRepo", f"Access to model {repository.repo_id} is restricted.")
        if name in _WRITES and not owner:
            raise refusal(403 if user else 401, "", f"You may not write to {repository.repo_id}")
