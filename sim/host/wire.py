"""The last step of an answer: out onto the wire, whole or as a fault would have it. ASGI, no more."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from sim.faults import AnyRule, Corrupt, Cut, DropAnswer, DropRequest, ErrorStatus, Html, WrongKcv
from terminal.clock import Random

CLOSE = "tillwright.close"
"""An ASGI extension: a function that closes the connection after what was written. A server that cannot be asked to
do that, as ``sim.network``, gets a ConnectionCut exception."""

JSON_TYPE = b"application/json"
HTML_TYPE = b"text/html; charset=utf-8"
HTML_PAGE = (
    b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>It is not you, it is us.</h1></body></html>"
)

_KCV = re.compile(rb'("(?:key_)?kcv":")([0-9A-Fa-f])')


class ConnectionCut(Exception):
    """The connection ended as a fault wanted it to."""


class BodyTooLarge(Exception):
    """A request's body is above the limit."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The request's body; None when the client went away. Raises BodyTooLarge above ``limit`` bytes."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise BodyTooLarge
        body = b"".join(parts)
    if len(body) > limit:
        raise BodyTooLarge
    return body


async def send_body(
    send: Send, status: int, body: bytes, content_type: bytes = JSON_TYPE, retry_after: int | None = None
) -> None:
    """An answer, whole."""
    await _start(send, status, len(body), content_type, retry_after)
    await send({"type": "http.response.body", "body": body})


async def send_under(
    rule: AnyRule, scope: Scope, receive: Receive, send: Send, *, status: int, body: bytes,
    retry_after: int | None, random: Random,
) -> None:  # fmt: skip
    """The host's answer as the rule lets it through."""
    match rule:
        case ErrorStatus():
            await send_body(send, rule.status, body, retry_after=rule.retry_after)
        case Html():
            await send_body(send, rule.status, HTML_PAGE, HTML_TYPE)
        case DropRequest() | DropAnswer():
            await _close(scope, receive)
        case Cut():
            await _start(send, status, len(body), JSON_TYPE, retry_after)
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _close(scope, receive)
        case Corrupt():
            await send_body(send, status, _corrupted(body, rule.at, random), retry_after=retry_after)
        case WrongKcv():
            await send_body(send, status, _KCV.sub(_other_digit, body), retry_after=retry_after)
        case _:
            await send_body(send, status, body, retry_after=retry_after)


async def _start(send: Send, status: int, length: int, content_type: bytes, retry_after: int | None) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(length).encode())]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _close(scope: Scope, receive: Receive) -> None:
    close: Callable[[], None] | None = scope.get("extensions", {}).get(CLOSE)
    if close is None:
        raise ConnectionCut
    close()
    while (await receive())["type"] != "http.disconnect":
        pass


def _corrupted(body: bytes, at: int | None, random: Random) -> bytes:
    if not body:
        return body
    place = (int.from_bytes(random(4)) if at is None else at) % len(body)
    other = body[place] ^ (1 + random(1)[0] % 255)
    return body[:place] + bytes([other]) + body[place + 1 :]


def _other_digit(found: re.Match[bytes]) -> bytes:
    return found[1] + b"%X" % (int(found[2], 16) ^ 0xF)
