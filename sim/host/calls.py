"""One request as the host sees it, its answer, and the names of the calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sim.host.refusals import Refusal, Why

if TYPE_CHECKING:
    from sim.faults import AnyRule

CALLS: dict[str, tuple[str, str]] = {
    "charge": ("POST", "/pos/charge"),
    "refund": ("POST", "/pos/charge/{id}/refund"),
    "cancel": ("POST", "/pos/charge/{id}/cancel"),
    "reverse": ("POST", "/pos/charge/{id}/reverse"),
    "charge_lookup": ("GET", "/pos/charge/{id}"),
    "charge_search": ("GET", "/pos/charge"),
    "refund_lookup": ("GET", "/pos/refund/{id}"),
    "heartbeat": ("POST", "/pos/heartbeat"),
    "bootstrap": ("POST", "/pos/bootstrap"),
    "pairing_code": ("POST", "/pos/pairing-code"),
    "status": ("GET", "/pos/status"),
    "claim": ("POST", "/pos/claim"),
    "attest": ("POST", "/pos/attest"),
    "keys": ("POST", "/pos/keys"),
    "config": ("POST", "/pos/config"),
    "terminal_parameters": ("POST", "/pos/terminal-parameters"),
    "activate": ("POST", "/pos/activate"),
    "client_session": ("POST", "/client/session"),
    "auth_token": ("POST", "/auth/token"),
    "session_initiate": ("POST", "/session/initiate"),
    "health": ("GET", "/health/live"),
}
"""Every call of the VioPay POS API, by the name under which faults and tests know it."""

_PLAIN = {(method, path): name for name, (method, path) in CALLS.items() if "{" not in path}
_NAMED = tuple(
    (method, re.compile(path.replace("{id}", "[^/]+")), name)
    for name, (method, path) in CALLS.items()
    if "{" in path
)


def call_name(method: str, path: str) -> str | None:
    """Which of ``CALLS`` it is, or None."""
    plain = _PLAIN.get((method, path))
    if plain is not None:
        return plain
    return next((name for asked, form, name in _NAMED if asked == method and form.fullmatch(path)), None)


PAYMENT_CALLS = frozenset({"charge", "refund"})
"""The calls with an amount inside their envelope."""


@dataclass(slots=True)
class Call:
    """A request, and what the handlers found in it (``device_id``, ``terminal_id``, the opened ``request``)."""

    name: str | None
    method: str
    path: str
    now: datetime
    """When it came, by the host's clock; the one time that its handling knows."""
    headers: Mapping[str, str]
    """By lower-case name."""
    repeated: frozenset[str] = frozenset()
    """Names of headers that came more than once."""
    query: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    """The charge or refund in the path."""
    body: bytes = field(default=b"", repr=False)
    fault: AnyRule | None = None
    """What goes wrong with it (``sim.faults``), as far as the host itself does that."""

    device_id: str | None = None
    terminal_id: str | None = None
    request: Any = field(default=None, repr=False)
    """The request's JSON, envelopes opened."""


@dataclass(slots=True)
class Answer:
    """What goes back: ``body`` as it travels, ``plain`` as the record shows it (JSON, envelopes opened)."""

    body: bytes = field(repr=False)
    plain: Any = field(repr=False)
    status: int = 200
    not_before: datetime | None = None
    """Held back until then."""
    retry_after: int | None = None


def plain_answer(document: Mapping[str, Any], status: int = 200) -> Answer:
    """An answer in plain JSON."""
    return Answer(msgspec.json.encode(document), document, status)


T = TypeVar("T")


def shaped(document: Any, shape: type[T]) -> T:
    """JSON that is decoded already, as ``shape``; Refusal 400 naming the field that is missing or malformed."""
    try:
        return msgspec.convert(document, type=shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Refusal(Why.MALFORMED, f"{error}.") from None


def decoded(body: bytes, shape: type[T]) -> tuple[Any, T]:
    """A request in plain JSON: as it is, and as ``shape``. Refusal 400."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(Why.MALFORMED, "The body is not JSON.") from None
    return document, shaped(document, shape)
