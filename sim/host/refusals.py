"""Every way in which the host says no, as one literal table."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus
from typing import Any

from sim.seed import pick
from terminal.clock import Random

_HEX = "0123456789abcdef"


class Why(Enum):
    """The reason for a refusal: its HTTP status and the error body's code (VioPay POS API)."""

    MALFORMED = (400, "4000")  # a header or a field is missing or malformed; an envelope that does not open
    CREDENTIALS = (401, "4010")  # signature, key id, timestamp, nonce or token
    SUPERSEDED = (401, "4011")  # the key set: take new keys
    NOT_YOURS = (403, "4030")  # the device belongs to another merchant
    BLOCKED = (403, "4031")  # the device is revoked or unclaimed
    UNKNOWN = (404, "4040")  # device, pairing code, charge, path
    METHOD = (405, "4050")  # the path exists, with another method
    CONFLICT = (409, "4090")  # out of order, or an idempotency key used for something else
    RULE = (422, "4220")  # well formed, and breaks a rule
    TOO_OLD = (426, "4260")  # the client's version
    TOO_MANY = (429, "4290")  # with Retry-After
    BROKEN = (500, "5000")  # our own mistake

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def code(self) -> str:
        """The error body's ``code``."""
        return self.value[1]


ENVELOPE_DOES_NOT_OPEN = "The envelope does not open."
KEY_REUSED = "Idempotency key reused with a different request body."
KEY_ELSEWHERE = "Idempotency key already used for a different endpoint."


class Refusal(Exception):
    """A request is refused. ``retry_after`` is in seconds, for a 429."""

    def __init__(self, why: Why, message: str, *, retry_after: int | None = None, **details: Any) -> None:
        super().__init__(message)
        self.why, self.message, self.details, self.retry_after = why, message, details, retry_after


def error_body(code: str, message: str, random: Random, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """``{"error": {"code", "message", "details", "trace_id"}}``."""
    trace_id = pick(random, _HEX, 32)
    return {"error": {"code": code, "message": message, "details": details or {}, "trace_id": trace_id}}


def default_code(status: int) -> str:
    """The code that goes with a bare HTTP status: ``"4290"`` for 429, ``"5000"`` for any 5xx."""
    for why in Why:
        if why.status == status:
            return why.code
    return "5000" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "4000"
