"""Where a command shows what happens: JSON lines for scripts, lines of text, or a live picture for a person."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from terminal import events
from terminal.payment import Payment, State

E = TypeVar("E", bound=events.Event)


class Screen(Protocol):
    """What a command shows things on. None of its methods raises when nobody can read."""

    def event(self, event: events.Event) -> None:
        """Something happened."""

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """One object for scripts, the same as lines for people."""

    def close(self) -> None:
        """Clear what moves."""


def open_screen(*, as_json: bool, plain: bool = False) -> Screen:
    """JSON where it is asked for, a picture where stdout is a terminal, lines otherwise."""
    if as_json:
        return JsonScreen()
    if plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainScreen()
    return LiveScreen()


def printable(text: str) -> str:
    """The text without control characters: a host's words are no commands to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def write_line(text: str) -> None:
    """A line on stdout, at once. Where it cannot be written the rest goes nowhere: no payment is undone by it."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


class JsonScreen:
    """One JSON object a line, as it happens."""

    def event(self, event: events.Event) -> None:
        """The event, its name under ``event``."""
        write_line(_json(events.as_dict(event)))

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """The facts alone."""
        write_line(_json(facts))

    def close(self) -> None:
        """Nothing moves."""


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))


class PlainScreen:
    """Lines of text, without colour: for pipes, logs and simple terminals."""

    def __init__(self) -> None:
        self._announced: set[str] = set()

    def event(self, event: events.Event) -> None:
        """A line, where the event is worth one."""
        if isinstance(event, events.Downloading):
            if event.what in self._announced:
                return
            self._announced.add(event.what)
        if text := describe(event):
            write_line(text)

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """The lines alone."""
        for line in text:
            write_line(line)

    def close(self) -> None:
        """Nothing moves."""


class LiveScreen(PlainScreen):
    """As lines, with what is going on below them; ``rich`` is imported when there is something to draw."""

    def __init__(self) -> None:
        super().__init__()
        self._picture: Any = None

    def event(self, event: events.Event) -> None:
        """Draw it."""
        if self._picture is None:
            from terminal.cli.picture import Picture

            self._picture = Picture()
        self._picture.event(event)

    def result(self, facts: Mapping[str, Any], text: Iterable[str]) -> None:
        """The lines, below a picture that has come to rest."""
        self.close()
        super().result(facts, text)

    def close(self) -> None:
        """Take away what moves and leave what was reached."""
        if self._picture is not None:
            self._picture.close()
            self._picture = None


def describe(event: events.Event) -> str:
    """The event as a line for people; empty for one that needs none."""
    tell = _TOLD.get(type(event))
    return printable(tell(event)) if tell else ""


def _code(event: events.PairingCodeShown) -> str:
    left = max(0, int((event.expires_at - event.at).total_seconds()))
    again = " (still the same)" if event.resumed else ""
    return f"pairing code {event.pairing_code}{again}: type it into the merchant's portal within {left} s"


def _changed(event: events.PaymentChanged) -> str:
    reference = f" {event.reference}" if event.reference else ""
    return f"{event.kind}{reference} {event.amount}: {STATES[event.state]}"


STATES: dict[str, str] = {
    State.NEW: "new",
    State.IN_FLIGHT: "with the host",
    State.IN_DOUBT: "in doubt",
    State.PENDING: "pending",
    State.APPROVED: "approved",
    State.DECLINED: "declined",
    State.REFUSED: "refused by the host",
    State.WITHDRAWN: "not sent",
    State.CANCELED: "canceled",
    State.PARTIALLY_REFUNDED: "refunded in part",
    State.REFUNDED: "refunded",
}
"""A payment's states in people's words."""

_TOLD: dict[type[events.Event], Callable[[Any], str]] = {
    events.LevelReached: lambda event: f"reached: {event.level}",
    events.LevelLost: lambda event: f"back to: {event.level} ({event.reason.replace('_', ' ')})",
    events.PairingCodeShown: _code,
    events.PairingPolled: lambda event: f"not claimed yet, {event.seconds_left} s left",
    events.Downloading: lambda event: f"downloading {event.what}",
    events.ClockMoved: lambda event: f"clock: follows the host, {event.seconds:+.0f} s from where it was",
    events.CardWanted: lambda event: f"Present your card: {event.amount} ({event.reference})",
    events.CardRefused: lambda event: f"card not read: {event.reason}",
    events.CardRead: lambda event: f"card {event.masked_pan} ({event.entry_mode})",
    events.PaymentChanged: _changed,
}


def payment_facts(payment: Payment) -> dict[str, Any]:
    """A payment as plain JSON values, amounts as ``{value, currency}``."""
    from terminal.clock import rfc3339

    approved = payment.approved
    return {
        "id": payment.id,
        "kind": payment.kind.value,
        "state": payment.state.value,
        "reference": payment.reference,
        "amount": {"value": str(payment.amount.minor), "currency": payment.amount.currency},
        "approved": {"value": str(approved.minor), "currency": approved.currency} if approved else None,
        "refunded": str(payment.refunded),
        "left": str(payment.left),
        "charge_id": payment.charge_id,
        "refund_id": payment.refund_id,
        "parent": payment.parent,
        "entry_mode": payment.entry_mode,
        "masked_pan": payment.masked_pan,
        "authorization_code": payment.authorization_code,
        "response_code": payment.response_code,
        "message": payment.message,
        "created_at": rfc3339(payment.created_at),
    }


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell."""
    table = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
