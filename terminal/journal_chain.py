"""The journal's chain: what a record is, how each is bound to the one before, and what they add up to. Pure.

A record's facts are JSON: of a payment's first record the payment (without what is as by default), of a later one
the fields that changed. Beside those stand, where there are any: ``request``, the slot and the SHA-256 of the
sealed request that was put by with this record; and ``acknowledged``, the ids of payments whose outcome had been
taken note of by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from terminal.errors import IllegalEvent
from terminal.payment import PAYMENT, SENT_FROM_HERE, TAKEN, Happened, Outcome, Payment, State


class Care(StrEnum):
    """Records that are of no event of a payment, but of the journal itself."""

    SUCCEEDS = "succeeds"
    """The first record of a journal that follows a damaged one; names its digest."""
    CARRIED = "carried"
    """A payment as the journal before had it, so far as that could be proved."""
    COMPACTED = "compacted"
    """What was old is gone up to a record, and this is the digest of what was kept of it."""


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """The bytes that travel, and the key set that sealed them (and so signs them)."""

    key_set_id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the chain knows of a sealed request: its slot in the side store and the SHA-256 of its bytes, in hex."""

    slot: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the chain: ``facts`` are the fields of the payment that changed.

    ``payment_id`` is empty where the record is of the journal itself.
    """

    seq: int
    at: str
    payment_id: str
    happened: Happened | Care
    facts: dict[str, Any]
    mark: Mark | None = None
    acknowledged: tuple[str, ...] = ()

    @property
    def concerns(self) -> tuple[str, ...]:
        """Ids of the payments that it changes; an empty one where it is of the journal itself."""
        return self.payment_id, *self.acknowledged


@dataclass(frozen=True, slots=True)
class Known:
    """A payment as its records have it so far. ``begun`` is the number of its first record."""

    begun: int
    payment: Payment
    mark: Mark | None = None
    news: bool = False
    """Its outcome has not been acknowledged."""


Row = tuple[int, str, str, str, bytes, bytes]
"""seq, at, payment_id, happened, facts, digest."""
_TYPES: Final = (int, str, str, str, bytes, bytes)

_DEFAULTS: Final = {
    each.name: msgspec.to_builtins(each.default) for each in fields(Payment) if each.default is not MISSING
}


def first_digest(journal_id: str) -> bytes:
    """What the first record is bound to."""
    return hashlib.sha256(journal_id.encode()).digest()


def link(before: bytes, seq: int, at: str, payment_id: str, happened: str, facts: bytes) -> bytes:
    """SHA-256 over the digest before (32 bytes) and the row: the lengths of its parts, then the parts."""
    head = f"{seq},{len(at)},{len(payment_id)},{len(happened)},{len(facts)}:{at}{payment_id}{happened}"
    return hashlib.sha256(before + head.encode() + facts).digest()


def holds(before: bytes, seq: int, row: tuple[Any, ...]) -> bool:
    """Whether a row is the record of this number, bound to the digest before."""
    return row[0] == seq and tuple(map(type, row)) == _TYPES and row[5] == link(before, *row[:5])


def encoded(facts: Mapping[str, Any], mark: Mark | None = None, acknowledged: tuple[str, ...] = ()) -> bytes:
    """A record's facts as they are written."""
    whole = dict(facts)
    if mark is not None:
        whole["request"] = mark
    if acknowledged:
        whole["acknowledged"] = acknowledged
    return msgspec.json.encode(whole)


def spelt(payment: Payment) -> dict[str, Any]:
    """A payment's fields but those that are as by default."""
    told: dict[str, Any] = msgspec.to_builtins(payment)
    return {name: value for name, value in told.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}


def first_facts(payment: Payment) -> dict[str, Any]:
    """The facts of a payment's first record: its fields, but for the id that stands beside them."""
    told = spelt(payment)
    del told["id"]
    return told


def read_record(row: Row) -> Record:
    """A row, parsed; raises ValueError or msgspec.ValidationError where it is none of ours."""
    seq, at, payment_id, happened, facts, _ = row
    told = msgspec.json.decode(facts, type=dict[str, Any])
    mark, acknowledged = told.pop("request", None), told.pop("acknowledged", ())
    return Record(
        seq,
        at,
        payment_id,
        Happened(happened) if happened in _HAPPENED else Care(happened),
        told,
        None if mark is None else msgspec.convert(mark, Mark),
        tuple(msgspec.convert(acknowledged, list[str])),
    )


_HAPPENED: Final = frozenset(map(str, Happened))


def after(payment: Payment, happened: Happened, facts: Mapping[str, Any]) -> Payment:
    """The payment after an event; raises IllegalEvent, or msgspec.ValidationError for facts that cannot be."""
    state = PAYMENT.step(payment.state, happened)
    if not facts:
        return payment if state is payment.state else replace(payment, state=state)
    told = msgspec.to_builtins(payment) | msgspec.to_builtins(facts)
    told["state"] = state
    return msgspec.convert(told, Payment)


def is_news(before: Payment, now: Payment) -> bool:
    """Whether an event gave the payment an outcome that its till has to hear of.

    What a refund or a cancel does to a charge that stands is no news of the charge: the till asked for it.
    """
    if now.outcome is Outcome.PENDING:
        return False
    if now.state in (State.LOST, State.FAILED):
        return True
    return now.outcome is not before.outcome and before.state not in TAKEN


def fold(known: dict[str, Known], record: Record) -> None:
    """Let a record act on what is known.

    Raises KeyError (of a payment that never began), ValueError, IllegalEvent or msgspec.ValidationError.
    """
    for payment_id in record.acknowledged:
        if payment_id in known:
            known[payment_id] = replace(known[payment_id], news=False)
    happened = record.happened
    if happened is Care.CARRIED:
        carried = record.facts | {"id": record.payment_id}
        news = bool(carried.pop("news", False))
        known[record.payment_id] = Known(record.seq, msgspec.convert(carried, Payment), record.mark, news)
    elif happened is Happened.JOURNALLED:
        if record.payment_id in known:
            raise ValueError("it has begun already")
        begun = record.facts | {"id": record.payment_id, "state": PAYMENT.step(State.NEW, happened)}
        known[record.payment_id] = Known(record.seq, msgspec.convert(begun, Payment), record.mark)
    elif isinstance(happened, Happened):
        earlier = known[record.payment_id]
        payment = after(earlier.payment, happened, record.facts)
        known[payment.id] = stepped(earlier, payment, record.mark)


def stepped(earlier: Known, payment: Payment, mark: Mark | None) -> Known:
    """What is known of a payment after an event that made it ``payment``."""
    kept = (mark or earlier.mark) if payment.state in SENT_FROM_HERE else None
    return Known(earlier.begun, payment, kept, earlier.news or is_news(earlier.payment, payment))


class Broken(Exception):
    """The chain does not hold at record ``seq``, or that record does not follow from those before it."""

    def __init__(self, seq: int, message: str) -> None:
        super().__init__(message)
        self.seq = seq


def walk(rows: Iterable[tuple[Any, ...]], seq: int, digest: bytes) -> Iterator[tuple[Record, bytes]]:
    """Each record after number ``seq``, whose digest is given, with its own digest; raises Broken."""
    for row in rows:
        seq += 1
        if not holds(digest, seq, row):
            raise Broken(seq, f"the chain breaks at record {seq}")
        digest = row[5]
        try:
            record = read_record(row)
        except (ValueError, msgspec.MsgspecError):
            raise Broken(seq, f"record {seq} cannot be read") from None
        yield record, digest


def folded(known: dict[str, Known], record: Record) -> None:
    """``fold``, with Broken for a record that does not follow."""
    try:
        fold(known, record)
    except (LookupError, ValueError, IllegalEvent, msgspec.MsgspecError):
        raise Broken(record.seq, f"record {record.seq} does not follow from those before it") from None
