"""What happened, as frozen dataclasses: the screen, the log, the API and the command line all read these.

No event holds a key, a token or a whole PAN. Moments are aware and in UTC.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from terminal.clock import rfc3339
from terminal.money import Amount

BACKLOG = 10_000
"""Events that a slow listener may fall behind before its oldest are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The root: something happened ``at`` that moment, by the host's clock as we know it."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReached(Event):
    """The terminal stands at this level of activation, on disk."""

    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelLost(Event):
    """The terminal fell back to ``level``; ``reason`` is ``revoked``, or an event of the activation machine."""

    level: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingCodeShown(Event):
    """A person types this code into the merchant's portal before ``expires_at``.

    Emitted again for an unexpired code when a pairing is resumed (``resumed``).
    """

    pairing_code: str
    expires_at: datetime
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingPolled(Event):
    """Nobody has claimed the terminal yet; the code lasts ``seconds_left`` more."""

    seconds_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloading(Event):
    """``received`` bytes of ``what`` so far; ``total`` is None while it is unknown."""

    what: str
    received: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockMoved(Event):
    """Ours follows the time that the host told; it was off by so many seconds (positive: we were behind)."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRefused(Event):
    """The host told a time that cannot be: ``said`` is below ``floor``, or decades ahead. Ours stays as it is."""

    said: datetime
    floor: datetime
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClockJumped(Event):
    """The device's own clock jumped by so many seconds while we ran; the time that we keep did not."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLost(Event):
    """The host answers no more; payments are tried all the same."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBack(Event):
    """The host answers again, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRenewed(Event):
    """A new key set is in use; it lasts until ``expires_at``."""

    key_set_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChanged(Event):
    """Another configuration is in force; ``sections`` are those of its parts that differ."""

    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersChanged(Event):
    """Other terminal parameters are in force, of this version."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRefused(Event):
    """New ``what`` (keys, config, parameters) came and were not taken; the old ones stay in force."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateWanted(Event):
    """The host would like a newer version of this program."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoreFailed(Event):
    """What keeps the terminal in order between payments failed, and is tried again; told once for a row."""

    chore: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardWanted(Event):
    """The shopper may present a card now."""

    amount: Amount
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRefused(Event):
    """A card was presented and could not be read; another try is welcome. ``advice`` is one sentence, or empty."""

    reason: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRead(Event):
    """A card was read: its masked PAN, and how (``hw.card.EntryMode``)."""

    masked_pan: str
    entry_mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentChanged(Event):
    """A charge, refund or cancel reached ``state``, on disk."""

    payment_id: str
    kind: str
    state: str
    reference: str
    amount: Amount
    charge_id: str
    response_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectedDuplicate(Event):
    """A charge of the same card and amount as ``duplicate_of``, a little while ago: perhaps the same sale twice."""

    payment_id: str
    reference: str
    duplicate_of: str
    earlier_reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredImageSuspected(Event):
    """The host has a charge of this reference that the journal does not know: perhaps an old copy was restored.

    It is taken for this payment's, so that nothing is charged twice.
    """

    payment_id: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue(Event):
    """What became of a payment, or its reversal, has not been settled for so many seconds: somebody should look.

    ``person``: only a person can find out (``till resolve PAYMENT --as``).
    """

    payment_id: str
    kind: str
    state: str
    reference: str
    amount: Amount
    seconds: float
    person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineLost(Event):
    """The host has declined what was approved here: the goods are gone and the money is not coming."""

    payment_id: str
    reference: str
    amount: Amount
    response_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFailed(Event):
    """A refund that the host had approved has failed since: the shopper has not had the money."""

    payment_id: str
    charge_id: str
    refund_id: str
    amount: Amount


def name(event: Event) -> str:
    """The event's name for machines: ``pairing_code_shown`` for PairingCodeShown."""
    return _in_words(type(event).__name__)


@cache
def _in_words(kind: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def as_dict(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, its name under ``event``; amounts as ``{value, currency}``."""
    return {"event": name(event)} | {
        field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)
    }


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return rfc3339(value)
        case tuple():
            return list(value)
        case Amount():
            return {"value": str(value.minor), "currency": value.currency}
        case _:
            return value


class EventStream:
    """Hands each event to every listener; never waits for one."""

    def __init__(self) -> None:
        self._listeners: list[_Listener] = []
        self._closed = False

    def emit(self, event: Event) -> None:
        """Give the event to all who listen now."""
        for listener in self._listeners:
            listener.put(event)

    def listen(self) -> AsyncIterator[Event]:
        """The events from now on, until the stream is closed."""
        listener = _Listener(self._listeners)
        if self._closed:
            listener.close()
        return listener

    def close(self) -> None:
        """End every listener once it has read what it was given."""
        self._closed = True
        for listener in self._listeners:
            listener.close()


class _Listener:
    def __init__(self, peers: list[_Listener]) -> None:
        self._events: deque[Event] = deque(maxlen=BACKLOG)
        self._wake = asyncio.Event()
        self._closed = False
        self._peers = peers
        peers.append(self)

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> _Listener:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                self._leave()
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def _leave(self) -> None:
        if self in self._peers:
            self._peers.remove(self)

    async def aclose(self) -> None:
        """Stop listening."""
        self._leave()
        self.close()
