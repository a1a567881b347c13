"""Events in people's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from terminal import events
from terminal.cli.text import STATES, printable
from terminal.payment import UNRESOLVED, Kind


def describe(event: events.Event, *, watching: bool = False) -> str:
    """The event as a line for people; empty for one that needs none. ``watching``: outcomes of payments, too."""
    if watching and isinstance(event, events.PaymentChanged):
        return printable(_stands(event))
    tell = _TOLD.get(type(event))
    return printable(tell(event)) if tell else ""


def _code(event: events.PairingCodeShown) -> str:
    left = max(0, int((event.expires_at - event.at).total_seconds()))
    again = " (still the same)" if event.resumed else ""
    return f"pairing code {event.pairing_code}{again}: type it into the merchant's portal within {left} s"


def _changed(event: events.PaymentChanged) -> str:
    if event.state not in UNRESOLVED:
        return ""  # the command ends with it, in more words
    return _stands(event)


def _stands(event: events.PaymentChanged) -> str:
    reference = f" {event.reference}" if event.reference and event.kind == Kind.CHARGE else ""
    return f"{event.kind}{reference} {event.amount}: {STATES[event.state]}"


def _duplicate(event: events.SuspectedDuplicate) -> str:
    return (
        f"perhaps the same sale twice: {event.reference} has the card and the amount of "
        f"{event.earlier_reference or event.duplicate_of}, a little while ago"
    )


def _overdue(event: events.Overdue) -> str:
    of = event.reference if event.reference and event.kind == Kind.CHARGE else event.payment_id
    told = f"OVERDUE: {event.kind} {of} {event.amount}: {STATES[event.state]} for {event.seconds / 60:.0f} min"
    by_hand = f"; ask the host, then: till resolve {event.payment_id} --as taken|not-taken --by NAME"
    return told + (by_hand if event.person else "")


_TOLD: dict[type[events.Event], Callable[[Any], str]] = {
    events.LevelReached: lambda event: f"reached: {event.level}",
    events.LevelLost: lambda event: f"back to: {event.level} ({event.reason.replace('_', ' ')})",
    events.PairingCodeShown: _code,
    events.PairingPolled: lambda event: f"not claimed yet, {event.seconds_left} s left",
    events.Downloading: lambda event: f"downloading {event.what}",
    events.ClockMoved: lambda event: f"clock: follows the host, {event.seconds:+.0f} s from where it was",
    events.ClockRefused: lambda event: f"clock: the host says {event.said:%Y-%m-%d %H:%M}, which cannot be",
    events.DeviceClockJumped: lambda event: f"clock: the device's own jumped by {event.seconds:+.0f} s, not ours",
    events.HostLost: lambda event: f"host lost: {event.reason}",
    events.HostBack: lambda event: f"host back, after {event.seconds:.0f} s",
    events.KeysRenewed: lambda event: f"new keys: {event.key_set_id}",
    events.ConfigChanged: lambda event: f"new configuration: {', '.join(event.sections)}",
    events.ParametersChanged: lambda event: f"new terminal parameters: {event.version}",
    events.RefreshRefused: lambda event: f"new {event.what} not taken, the old ones stay: {event.reason}",
    events.UpdateWanted: lambda event: f"the host would like a newer version than {event.version}",
    events.ChoreFailed: lambda event: f"{event.chore.replace('_', ' ')}: {event.reason}",
    events.CardWanted: lambda event: f"Present your card: {event.amount} ({event.reference})",
    events.CardRefused: lambda event: f"card not read: {event.reason}" + (event.advice and f". {event.advice}"),
    events.CardRead: lambda event: f"card {event.masked_pan} ({event.entry_mode})",
    events.PaymentChanged: _changed,
    events.SuspectedDuplicate: _duplicate,
    events.RestoredImageSuspected: lambda event: (
        f"the host has a charge {event.reference} that the journal does not know: was an old copy restored?"
    ),
    events.Overdue: _overdue,
    events.OfflineLost: lambda event: (
        f"LOST: charge {event.reference} {event.amount} was approved here, and the host has declined it"
    ),
    events.RefundFailed: lambda event: (
        f"REFUND FAILED: {event.amount} of charge {event.charge_id}; the shopper has not had the money"
    ),
}
