"""A day as data: the steps that happen one after the other, as JSON may hold them and ``till soak --replay`` runs.

Nothing is drawn while a day is lived but what keys and noise are made of: a step that is left out changes nothing
of what the others say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

MAX_STEPS = 10_000_000
MAX_FILE = 1024 * 1024 * 1024

Reference = Annotated[str, Meta(min_length=1, max_length=64)]
Minor = Annotated[int, Meta(ge=1, le=10**9)]
Seconds = Annotated[float, Meta(ge=0, le=10**7)]


class DayError(Exception):
    """A file is no day; the message says where it is not."""


class Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="do", kw_only=True):
    """Something that happens."""


class Charge(Step, frozen=True, tag="charge"):
    """A shopper pays. ``card`` is a name of ``sim.reader.stripes.CARDS``."""

    reference: Reference
    minor: Minor
    currency: str = "EUR"
    card: str = "visa"
    typed: bool = False
    """The number is typed; else the card is swiped."""
    pin: bool = False
    hold: bool = False
    accept_partial: bool = False
    leaves: Seconds | None = None
    """The shopper leaves after so many seconds where nothing has come; None: only when the till is told nothing."""
    how: Literal["abandon", "cancel"] = "abandon"
    """What the till does then: say so, or just cancel its call."""
    stays: bool = False
    """The shopper waits where the till has to start anew, and is asked to pay once more."""


class Again(Step, frozen=True, tag="again"):
    """The till asks for the same reference once more; ``minor`` for another amount."""

    reference: Reference
    minor: Minor | None = None


class Refund(Step, frozen=True, tag="refund"):
    """So many thousandths of what was approved go back; ``name`` is the reason that is given."""

    reference: Reference
    name: Reference
    permille: Annotated[int, Meta(ge=1, le=1000)] = 1000


class Cancel(Step, frozen=True, tag="cancel"):
    """The sale is undone."""

    reference: Reference


class Confirm(Step, frozen=True, tag="confirm"):
    """The goods are out."""

    reference: Reference


class Void(Step, frozen=True, tag="void"):
    """The goods are not to be had."""

    reference: Reference


class Wait(Step, frozen=True, tag="wait"):
    """Time passes."""

    seconds: Seconds


class Trouble(Step, frozen=True, tag="trouble"):
    """What goes wrong from here on (``sim.faults``): at calls, at the disk. Of earlier rules of that sort only
    those stay that wait for their n-th time."""

    rules: list[dict[str, Any]] | None = None
    disk: list[dict[str, Any]] | None = None


class PowerOff(Step, frozen=True, tag="power_off"):
    """The terminal is without power for so long, in the middle of nothing."""

    seconds: Seconds = 5.0


class Reopen(Step, frozen=True, tag="reopen"):
    """The program is ended in good order and started again."""


class HostRestart(Step, frozen=True, tag="host_restart"):
    """The host is ended and started again."""


class ClockJump(Step, frozen=True, tag="clock_jump"):
    """The terminal's clock is so many seconds ahead of what it was (behind, below zero)."""

    seconds: Annotated[float, Meta(ge=-(10**9), le=10**9)]


class Settle(Step, frozen=True, tag="settle"):
    """All that is approved goes to clearing."""


AnyStep = (
    Charge | Again | Refund | Cancel | Confirm | Void | Wait
    | Trouble | PowerOff | Reopen | HostRestart | ClockJump | Settle
)  # fmt: skip


class Day(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """``seed`` of the world in which ``steps`` happen; ``lookup``: whether its host offers look-ups;
    ``acknowledgement``: the terminal's setting of that name."""

    seed: int
    lookup: bool = True
    acknowledgement: Literal["return", "explicit"] = "return"
    steps: Annotated[list[AnyStep], Meta(max_length=MAX_STEPS)]

    @property
    def payments(self) -> int:
        """How many charges are asked for."""
        return sum(isinstance(step, Charge) for step in self.steps)


def encode(day: Day) -> bytes:
    """The day as JSON, a step a line."""
    head = msgspec.json.encode(msgspec.structs.replace(day, steps=[])).removesuffix(b"]}")
    return head + b"\n" + b",\n".join(map(msgspec.json.encode, day.steps)) + b"\n]}\n"


def decode(text: bytes, name: str = "a day") -> Day:
    """The day in a JSON document; DayError, which has its name, where it is none."""
    try:
        return msgspec.json.decode(text, type=Day)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DayError(f"{name}: no day to be lived: {error}") from None


def read(path: Path) -> Day:
    """The day in a file; DayError where it cannot be read or is none."""
    try:
        with path.open("rb") as file:
            return decode(file.read(MAX_FILE), str(path))
    except OSError as error:
        raise DayError(f"{path}: {error.strerror}") from None
