"""The recorded wire: what was asked and answered, envelopes opened, nothing secret, the oldest forgotten first."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from sim.host.calls import Answer, Call
from sim.host.requests import harmless_emv
from terminal.clock import rfc3339

HIDDEN = "***"
SECRET_FIELDS = frozenset(
    {
        "access_token", "attestation_token", "client_secret", "secret", "merchant_key", "authorization",
        "key", "key_block", "track2", "pan", "pin", "encrypted_card", "ciphertext",
        "initialization_vector", "block",
    }
)  # fmt: skip
"""Fields that the record shows as ``***``, at any depth."""

_MASKED_PAN = re.compile(r"[0-9]{0,8}\*{2,}[0-9]{0,4}")
_CARD_FIELDS = {"expiry": re.compile("[0-9]{4}"), "sequence": re.compile("[0-9]{1,3}"), "masked_pan": _MASKED_PAN}
_MAX_TEXT = 4096
_MAX_ITEMS = 8
_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call. ``status`` is None where the request did not reach the host."""

    n: int
    at: datetime
    method: str
    path: str
    call: str | None
    device_id: str | None
    terminal_id: str | None
    status: int | None
    request: Any = field(repr=False)
    response: Any = field(repr=False)
    fault: str | None = None

    def public(self) -> dict[str, Any]:
        """As ``GET /sim/exchanges`` shows it. What a fault did to the answer stands in ``response``."""
        response = redact(self.response)
        if self.fault is not None:
            response = {"fault": self.fault, "answer": response}
        return {
            "n": self.n, "at": rfc3339(self.at), "method": self.method, "path": self.path,
            "device_id": self.device_id, "terminal_id": self.terminal_id, "status": self.status,
            "request": redact(self.request), "response": response,
        }  # fmt: skip


class Exchanges:
    """The last ``limit`` calls, numbered from 1 since the host started."""

    def __init__(self, limit: int) -> None:
        self._kept: deque[Exchange] = deque(maxlen=limit)
        self.count = 0

    def add(self, call: Call, answer: Answer | None, fault: str | None = None) -> None:
        """Record a call with what the host answered, None where it never saw the request."""
        self.count += 1
        status, response = (answer.status, answer.plain) if answer else (None, None)
        self._kept.append(
            Exchange(
                self.count, call.now, call.method, call.path, call.name, call.device_id, call.terminal_id,
                status, call.request, response, fault,
            )
        )  # fmt: skip

    def calls(self, device_id: str | None = None) -> list[Exchange]:
        """What is kept, the oldest first, of one device or of all."""
        return [kept for kept in self._kept if device_id is None or kept.device_id == device_id]

    def public(self, device_id: str | None = None) -> list[dict[str, Any]]:
        """The same, as it may be shown."""
        return [kept.public() for kept in self.calls(device_id)]


def redact(value: Any, depth: int = 0) -> Any:
    """A JSON value without its secrets; long lists and texts are cut, so that a record stays readable."""
    if depth > _MAX_DEPTH:
        return HIDDEN
    if isinstance(value, dict):
        return {
            str(name)[:_MAX_TEXT]: HIDDEN if name in SECRET_FIELDS else _member(name, inner, depth)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        shown = [redact(inner, depth + 1) for inner in islice(value, _MAX_ITEMS)]
        return [*shown, f"and {len(value) - _MAX_ITEMS} more"] if len(value) > _MAX_ITEMS else shown
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{len(value)} characters"
    return value


def _member(name: object, value: Any, depth: int) -> Any:
    """A card shows only what is known to be harmless: a malformed request may have anything anywhere."""
    if name == "card":
        if not isinstance(value, dict):
            return HIDDEN
        return {
            key: inner if _harmless(key, inner) else HIDDEN
            for key, inner in value.items()
            if key in {*_CARD_FIELDS, "track2", "pan", "encrypted_card"}
        }
    if name == "emv" and isinstance(value, str):
        return value if harmless_emv(value) else HIDDEN
    return redact(value, depth + 1)


def _harmless(field: str, value: object) -> bool:
    form = _CARD_FIELDS.get(field)
    return form is not None and isinstance(value, str) and form.fullmatch(value) is not None
