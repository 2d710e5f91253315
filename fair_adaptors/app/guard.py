"""What stands before the page: it refuses other hosts and other sites' pages, and sets a strict content policy.

Gradio hides answers from other sites' pages, but does what they send, and answers any name that was pointed at this
machine. `Door` stands before it, for both.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")

POLICY = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
    b" img-src 'self' data: blob:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = (
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

Message = MutableMapping[str, Any]

Receive = Callable[[], Awaitable[Message]]

Send = Callable[[Message], Awaitable[None]]


class Door:
    """Lets in only what this page's own browser sends, and forbids that browser to fetch from elsewhere."""

    def __init__(self, app: Any, *, local: bool):
        """Guard an ASGI application.

        Args:
            local: whether only this machine is meant; then no other name is answered, whoever it was pointed here by.
        """
        self._app, self._local = app, local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = sent.get(b"host", ""), sent.get(b"origin")
        named = not self._local or urlsplit(f"//{host}").hostname in LOOPBACK
        if not named or (origin is not None and urlsplit(origin).netloc != host):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"Only this page may send requests to itself.\n"})
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self._app(scope, receive, answer)
