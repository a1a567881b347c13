"""The last step of an answer: out onto the wire, whole or as a fault would have it. ASGI, no more."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from sim.faults.wire import (
    AnyRule,
    Corrupt,
    Cut,
    Drip,
    DropAnswer,
    DropRequest,
    ErrorStatus,
    Html,
    WrongKcv,
    WrongMac,
)
from sim.seed import corrupted
from terminal.clock import Random

CLOSE = "tillwright.close"
"""An ASGI extension: a function that closes the connection after what was written. A server that cannot be asked to
do that, as ``sim.network``, gets a ConnectionCut exception."""

CHOSEN = "tillwright.fault"
"""An ASGI extension: the rule that ``sim.network`` has chosen for this request, or None."""

JSON_TYPE = b"application/json"
HTML_TYPE = b"text/html; charset=utf-8"
HTML_PAGE = (
    b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>It is not you, it is us.</h1></body></html>"
)

_KEY_BLOCK = re.compile(rb'("key_block":")([A-Za-z0-9+/=]+)')
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
        case DropRequest(how="silence") | DropAnswer(how="silence"):
            await _gone(receive)
        case DropRequest() | DropAnswer():
            await _close(scope, receive)
        case Cut():
            await _start(send, status, len(body), JSON_TYPE, retry_after)
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _close(scope, receive)
        case Drip():
            await _start(send, status, len(body), JSON_TYPE, retry_after)
            for at in range(0, len(body), rule.size):
                await asyncio.sleep(rule.seconds)
                piece, more = body[at : at + rule.size], at + rule.size < len(body)
                await send({"type": "http.response.body", "body": piece, "more_body": more})
        case Corrupt():
            await send_body(send, status, corrupted(body, rule.at, random), retry_after=retry_after)
        case WrongMac():
            await send_body(send, status, _KEY_BLOCK.sub(_other_mac, body), retry_after=retry_after)
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
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait until the caller has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _other_digit(found: re.Match[bytes]) -> bytes:
    return found[1] + b"%X" % (int(found[2], 16) ^ 0xF)


def _other_mac(found: re.Match[bytes]) -> bytes:
    """A key block whose last digit, which is its MAC's (ANSI X9.143), is another."""
    block = base64.b64decode(found[2])
    return found[1] + base64.b64encode(block[:-1] + (b"0" if block[-1:] != b"0" else b"1"))
