"""Where the terminal stands, on disk: the record of its activation, and every change of it.

The record lies in the vault. It is written together with what a step brought (keys, configuration, parameters), in
one atomic write, so that a power cut finds either both or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from terminal.activation import ACTIVATION, WAYS_BACK, Level, Step
from terminal.clock import NEAR, HostClock
from terminal.crypto.keystore import Keystore
from terminal.crypto.vault import Draft, Vault
from terminal.errors import HostRefused, NotReady
from terminal.events import DeviceClockJumped, Event, LevelLost, LevelReached
from terminal.journal import Journal

RECORD: Final = "activation"
JOURNAL_SEQ: Final = "journal_seq"
"""The vault's fact that says how long the journal was at the vault's last change: a shorter one is an old copy."""
REVOKED: Final = "revoked"

LOST: Final = {
    Step.UNCLAIMED.value: (
        "the merchant has given the device up, it is unclaimed",
        "Run `till activate`, and claim it by the code that is shown.",
    ),
    REVOKED: (
        "the host has revoked the device",
        "Ask who runs the host to let it in again, then run `till activate`.",
    ),
    Step.VERSION_TOO_OLD.value: (
        "the host wants a newer version of this program",
        "Upgrade it (pip install --upgrade tillwright), then run `till activate`.",
    ),
}
"""What a level was lost for, in words, and what to do about it."""


class Record(msgspec.Struct, frozen=True):
    """Where the terminal stands, as the vault keeps it. Moments are by the host's clock."""

    level: Level = Level.UNPROVISIONED
    pairing_code: str = ""
    pairing_expires_at: datetime | None = None
    token: str = ""
    token_expires_at: datetime | None = None
    clock_offset: float = 0.0
    """Seconds to add to the device's clock to have the host's."""
    confirmed_at: datetime | None = None
    """When the host last agreed with our clock, as far as it was worth a write."""
    lost: str = ""
    """Why a level was lost that has not been reached again: an event of the activation machine, or ``revoked``."""

    def __repr__(self) -> str:
        return f"Record(level={self.level.value!r})"


def provisioned_record() -> bytes:
    """The record of a terminal that has just been given its identity."""
    return msgspec.json.encode(Record(ACTIVATION.step(Level.UNPROVISIONED, Step.PROVISIONED)))


def recall(clock: HostClock, journal: Journal) -> None:
    """Let the clock begin no earlier than the journal's last record, with its floor where the host last answered.

    The last record alone makes no floor: it may have been written by a clock that ran ahead, and never sent.
    """
    last_at = journal.last_at
    if last_at is None:
        return
    clock.not_before(last_at)
    answered = journal.last_answered(last_at - timedelta(hours=1))
    if answered is not None:
        clock.confirm(answered.created_at)


class Standing:
    """The record and its changes. ``anchor`` gives the number of the journal's last record."""

    def __init__(
        self,
        keystore: Keystore,
        vault: Vault,
        clock: HostClock,
        emit: Callable[[Event], None],
        anchor: Callable[[], int] | None = None,
    ) -> None:
        self._keystore, self._vault, self._clock, self._emit = keystore, vault, clock, emit
        self._anchor = anchor
        self.record = msgspec.json.decode(vault.get(RECORD) or b"{}", type=Record)
        clock.restore(timedelta(seconds=self.record.clock_offset), self.record.confirmed_at)

    @property
    def level(self) -> Level:
        """Where the terminal stands, on disk."""
        return self.record.level

    def kept(self, name: str) -> bytes | None:
        """A record of the vault: the configuration, the parameters."""
        return self._vault.get(name)

    def fact(self, name: str) -> str:
        """A public fact of the vault, empty where there is none."""
        return self._vault.facts.get(name, "")

    def not_ready(self) -> NotReady | None:
        """Why no payment can be taken; None where the terminal is activated."""
        if self.level is Level.ACTIVATED:
            return None
        message = f"the terminal is not activated (it is at level {self.level.value!r})"
        if self.record.lost not in LOST:
            return NotReady(message)
        why, advice = LOST[self.record.lost]
        return NotReady(f"{message}: {why}", advice=advice)

    def move(self, step: Step, change: Callable[[Draft], None] | None = None, **fields: Any) -> None:
        """Take a step, and what it brought, to disk in one write, then tell."""
        before = self.level
        if step in (Step.CLAIMED, Step.ACTIVATED):
            fields["lost"] = ""
        record = msgspec.structs.replace(self.record, level=ACTIVATION.step(before, step), **fields)
        self.write(record, change)
        if record.level is before:
            return
        if step in WAYS_BACK.values() or step is Step.CODE_EXPIRED:
            self._emit(LevelLost(at=self._clock.now(), level=record.level.value, reason=record.lost or step.value))
        else:
            self._emit(LevelReached(at=self._clock.now(), level=record.level.value))

    def fall(self, step: Step, refusal: HostRefused | None = None) -> None:
        """Take a step back; a device that is nobody's forgets its key sets with it."""
        blocked = step is Step.UNCLAIMED
        lost = (
            REVOKED if blocked and refusal is not None and "revoked" in refusal.host_message.lower() else step.value
        )
        self.move(step, self._forget_keys if blocked else None, lost=lost)

    def note(self, lost: str) -> None:
        """Why the level is still lost, where the host has told more of it since."""
        self.write(msgspec.structs.replace(self.record, lost=lost))

    def tidy(self) -> None:
        """Drop the key set before the one in use once it has expired; keep the offset of a clock that jumped."""
        self.write(self.record)

    def write(self, record: Record, change: Callable[[Draft], None] | None = None) -> None:
        """Bring the record to disk, and what ``change`` makes of the rest; nothing where nothing changed."""
        now = self._clock.now()
        if jumped := self._clock.jumped().total_seconds():
            self._emit(DeviceClockJumped(at=now, seconds=round(jumped, 3)))
        offset = self._clock.offset.total_seconds()
        if abs(offset - record.clock_offset) >= NEAR.total_seconds():
            record = msgspec.structs.replace(record, clock_offset=offset)
        if change is None and record == self.record and not self._keystore.holds_expired(now):
            return
        record = msgspec.structs.replace(record, confirmed_at=self._clock.confirmed)
        with self._vault.change() as draft:
            if change is not None:
                change(draft)
            self._keystore.drop_superseded(draft, now)
            draft.records[RECORD] = msgspec.json.encode(record)
            draft.facts["level"] = record.level.value
            if self._anchor is not None:
                draft.facts[JOURNAL_SEQ] = str(self._anchor())
        self.record = record

    def _forget_keys(self, draft: Draft) -> None:
        self._keystore.forget_key_sets(draft)
        for fact in ("key_set_id", "key_set_issued_at", "key_set_expires_at"):
            draft.facts.pop(fact, None)
