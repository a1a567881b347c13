"""Reading any host's answer: JSON into a type, and the error that names the field which is wrong.

Nothing here quotes an answer: what a host sends may hold what must not be in a log.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, NoReturn, TypeVar

import msgspec

from terminal.errors import HostAnswerInvalid

T = TypeVar("T")

Text = Annotated[str, msgspec.Meta(max_length=512)]
"""A host's words."""
Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""RFC 3339, with its zone."""


def decode(call: str, kind: type[T], body: bytes) -> T:
    """The JSON of an answer as a ``kind``; raises HostAnswerInvalid naming the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        where, problem = _said(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        where, problem = "body", "it is not JSON"
    raise HostAnswerInvalid(call, where, problem)


def _said(message: str) -> tuple[str, str]:
    """Field and problem from msgspec's words, without the value that some of them quote."""
    problem, at, path = message.rpartition(" - at `$")
    problem, path = (problem, path) if at else (message, "")
    where = path.removesuffix("`").lstrip(".")
    if missing := re.match(r"Object missing required field `(\w+)`\Z", problem):
        where, problem = ".".join(filter(None, (where, missing[1]))), "it is missing"
    elif problem.startswith("Invalid enum value"):
        problem = "it is none of the known values"
    return where or "body", problem.replace("`", "")


def utc(call: str, name: str, told: datetime) -> datetime:
    """The moment in UTC."""
    try:
        return told.astimezone(UTC)
    except OverflowError:  # the year 1 or 9999, at the edge of a zone
        refuse(call, name, "it is out of the calendar's range")


def refuse(call: str, name: str, problem: str) -> NoReturn:
    """Raise HostAnswerInvalid, and hide the cause, which may quote the value."""
    raise HostAnswerInvalid(call, name, problem) from None


def printable(text: str) -> str:
    """For a screen, a receipt or a log: no control characters."""
    return "".join(char if char.isprintable() else " " for char in text)
