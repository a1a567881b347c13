"""The VioPay POS API's error body, and what to do about each of its codes."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from terminal.errors import HostAnswerInvalid, HostRefused
from terminal.hosts.answer import decode, printable

ADVICE = {
    "4010": "Check the device's clock and `till keys`; a token that expired is replaced by `till activate`.",
    "4011": "The key set is superseded: run `till activate` to take new keys.",
    "4030": "The device belongs to another merchant: claim it with that merchant's account.",
    "4031": "The device was revoked or is no longer claimed: run `till activate`.",
    "4260": "This version is too old for the host: update, or set host.client_version.",
    "4290": "Wait before the next try.",
}
"""What to do about a refusal, by its code."""


class _ErrorBody(Struct):
    code: Annotated[str, Meta(pattern=r"^[0-9A-Za-z_.-]{1,32}\Z")]
    message: str = ""
    trace_id: str | None = None


class _Error(Struct):
    error: _ErrorBody


_SECRET = re.compile(r"att_\S+|(?=\S*[0-9A-Z])[A-Za-z0-9+/=_.~*-]{20,}|(?:[0-9][ -]?){11,18}[0-9]")
"""What may be a token, a key, a MAC or a card number that a host echoes."""


def refusal(call: str, status: int, body: bytes, retry_after: float | None) -> HostRefused | None:
    """The host's error body as an error; None when the body is no such thing.

    The host's message is a stranger's text: it is cut to 200 characters, and what looks like a secret is taken out.
    """
    try:
        told = decode(call, _Error, body).error
    except HostAnswerInvalid:
        return None
    return HostRefused(
        call,
        status,
        told.code,
        _SECRET.sub("[removed]", printable(told.message[:1000]))[:200],
        trace_id=told.trace_id if told.trace_id and re.match(r"^[A-Za-z0-9-]{1,40}\Z", told.trace_id) else "",
        retry_after=retry_after,
        advice=ADVICE.get(told.code, ""),
    )
