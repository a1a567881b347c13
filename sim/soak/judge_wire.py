"""What may never be sent, by the record of the wire: one function a rule, all of them pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from sim.soak.evidence import Evidence, Violation
from sim.soak.record import Sent
from terminal.payment import WITHOUT_EFFECT, Happened

CHARGE = "charge"
RENEWAL = frozenset({"keys", "attest", "config", "terminal_parameters"})
"""Calls that belong between payments."""
REFUSES_KEYS = 401
REFUSES = frozenset({REFUSES_KEYS, 429})
"""It has not acted, and says so of any request: the keys are not good, or there are too many."""


def written_before_sent(seen: Evidence) -> Iterator[Violation]:
    """Whatever acts was in the journal before it left: a key that the journal does not know was sent by nobody."""
    known = {payment.id for payment in seen.payments}
    for key in sorted({sent.key for sent in seen.record.sent if sent.key} - known):
        yield Violation("intent", key, "it was sent, and the journal does not know it")


def one_key_a_reference(seen: Evidence) -> Iterator[Violation]:
    """A second attempt of a reference under a new key comes only after the first is known to be without effect."""
    ended: dict[str, int] = {}
    for number, entry in enumerate(seen.entries):
        charge = seen.charges.get(entry.payment_id)
        if charge is not None and charge.state in WITHOUT_EFFECT:
            ended[charge.id] = number
    begun: dict[str, str] = {}
    for number, entry in enumerate(seen.entries):
        charge = seen.charges.get(entry.payment_id)
        if charge is None or entry.happened is not Happened.JOURNALLED:
            continue
        earlier = begun.get(charge.reference)
        if earlier is not None and ended.get(earlier, len(seen.entries)) > number:
            yield Violation("one_key", charge.reference, "a second attempt began before the first had ended")
        begun[charge.reference] = charge.id


def same_bytes_under_a_key(seen: Evidence) -> Iterator[Violation]:
    """Under one key the same bytes, always; others only where the host has judged the earlier ones and refused
    their keys each time, and so has not acted; or has never got them, and they were approved offline for that."""
    stored = {entry.payment_id for entry in seen.entries if entry.happened is Happened.STORED}
    judged: dict[tuple[str, str], list[int]] = {}
    for one in seen.record.judged:
        if one.key:
            judged.setdefault((one.key, one.digest), []).append(one.status)
    first: dict[str, str] = {}
    for sent in seen.record.sent:
        if not sent.key:
            continue
        before = first.setdefault(sent.key, sent.digest)
        if before != sent.digest:
            told = set(judged.get((sent.key, before), ()))
            refused = REFUSES_KEYS in told and told <= REFUSES
            if not refused and (told or sent.key not in stored):
                yield Violation("same_bytes", sent.key, "other bytes were sent, and the keys had not been refused")
            first[sent.key] = sent.digest


def nothing_is_sent_after_leaving(seen: Evidence) -> Iterator[Violation]:
    """Once the shopper has left no charge is sent for them, but by the named last resort where look-up is off."""
    excused = {
        entry.payment_id for entry in seen.entries if entry.happened in (Happened.SENT_TO_CANCEL, Happened.STORED)
    }
    for sent in seen.record.sent:
        charge = seen.charges.get(sent.key) if sent.call == CHARGE else None
        sale = seen.record.sales.get(charge.reference) if charge else None
        if charge is None or sale is None or sale.left is None or sent.at <= sale.left or charge.id in excused:
            continue
        yield Violation(
            "sent_after_leaving", charge.reference, f"at {sent.at:.3f}, {sent.at - sale.left:.3f} s later"
        )
    if seen.lookup:
        for entry in seen.entries:
            if entry.happened is Happened.SENT_TO_CANCEL:
                about = seen.charges[entry.payment_id].reference
                yield Violation("sent_after_leaving", about, "the last resort was taken where there are look-ups")


def nothing_is_renewed_meanwhile(seen: Evidence) -> Iterator[Violation]:
    """Between a charge's first sending and the answer to the till nothing is renewed, unless the host asked."""
    refused = sorted(one.at for one in seen.record.judged if one.status in (401, 403))
    for began, ended in seen.record.turns:
        first: Sent | None = None
        for one in seen.record.sent[began:ended]:
            if first is None:
                first = one if one.call == CHARGE and one.key else None
            elif one.call in RENEWAL and one.boot == first.boot:
                place = bisect_left(refused, first.at)
                if place == len(refused) or refused[place] > one.at:
                    charge = seen.charges.get(first.key)
                    about = charge.reference if charge else first.key
                    yield Violation("renewed_meanwhile", about, f"{one.call} was asked for at {one.at:.3f}")
                break
