"""What every request passes before the page sees it: who asks, how much comes, what goes back.

A plain ASGI application around another one, so that it can be tried without a server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# nothing of the page comes from elsewhere, and nothing goes there
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# of a body that is too large: read and dropped, so that its sender hears why
_MOST_DROPPED = 1 << 28


class Guard:
    """Refuses what is not meant for this server, and sends the headers of a careful one.

    400: another host than those it is known by, which is what a rebound name looks like. 403: a
    page of another origin asks. 411, 413: a body of unknown length, or of too many bytes.

    Args:
        app: what is guarded.
        max_bytes: of a request's body.
        hosts: names that it is known by, without the port; empty: any.
    """

    def __init__(self, app: App, *, max_bytes: int, hosts: frozenset[str] = frozenset()) -> None:
        self._app, self._max_bytes, self._hosts = app, max_bytes, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "websocket":  # there is none
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), text.encode()) for name, text in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        status, line = self._problem(scope)
        if not status:
            await self._app(scope, receive, with_headers)
            return
        num_dropped, more = 0, status in (411, 413)
        while more and num_dropped < _MOST_DROPPED:
            message = await receive()
            num_dropped += len(message.get("body", b""))
            more = message.get("more_body", False)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{line}\n".encode()})

    def _problem(self, scope: Message) -> tuple[int, str]:
        """The status of a refusal with its line; 0 for none."""
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self._hosts and (urlsplit(f"//{host}").hostname or "") not in self._hosts:
            return 400, f"host {host!r} is not this server; open it by the address it printed"
        if origin and urlsplit(origin).netloc != host:
            return 403, f"origin {origin!r} is another page; open this server's own"
        if "transfer-encoding" in headers:
            return 411, "a body needs a Content-Length; send the file as a whole"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes:
            return 413, f"{length} bytes, at most {self._max_bytes} are taken (--max_upload)"
        return 0, ""
