"""One request as the host sees it, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from sim.faults.wire import AnyRule
from sim.host.refusals import Refusal, Why


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
