"""A host: what it does with a request, and what it does by itself.

It matches an idempotency key on the raw bytes, after it has proved who asks and before it opens anything, and then
gives the first answer again. A cancel has no key: a second one gives the same answer again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.prove.states import UNKNOWN, Age, Booked, Bounds, Known, Move, Packet, Said, Shown, World
from terminal import refusals
from terminal.payment import Kind

APPROVED, DECLINED, PENDING, CANCELED = "approved", "declined", "pending", "canceled"
REFUSED = Said("conflict")
"""409: the request was opened, judged, and cannot be."""
ABOVE = Said("above")
"""422: more is to be given back than is left."""
SUPERSEDED = Said("superseded")
"""401 "4011": the key set is. Nothing was done."""
BLOCKED = Said("blocked")
"""403: the device is revoked. Nothing was done."""
BROKEN = Said("broken")
"""A status of 500 and above."""
UNOPENED = Said("unopened")
"""400: the envelope does not open."""
CAUSES: dict[str, refusals.Cause] = {
    # what it says: the status and code that the terminal sees
    REFUSED.word: (refusals.CONFLICT, "4090"),
    ABOVE.word: (refusals.RULE_BROKEN, "4220"),
    SUPERSEDED.word: refusals.SUPERSEDED,
    BLOCKED.word: (403, "4031"),
    UNOPENED.word: (refusals.UNREADABLE, "4000"),
}
"""What is refused for certain."""


class Acted(NamedTuple):
    """One way in which the host may take a request."""

    world: World
    said: Said
    how: str = ""
    fault: bool = False


def take(world: World, packet: Packet, bounds: Bounds) -> Iterator[Acted]:
    """All that the host may make of the request."""
    if world.blocked:
        yield Acted(world, BLOCKED)
    elif packet.signed < world.oldest:
        yield Acted(world, SUPERSEDED)
    elif packet.kind is Kind.CANCEL:
        yield from _cancel(world, packet, bounds)
    else:
        known = next((known for known in world.known if known.key == packet.key), None)
        if known is not None:
            yield Acted(world, known.said if known.version == packet.version else REFUSED, "again")
        elif packet.sealed < world.oldest:
            yield Acted(world, UNOPENED)
        else:
            yield from _judge(world, packet, bounds)
            if bounds.errors:
                yield Acted(world, BROKEN, "fails", fault=True)
                yield Acted(_remember(world, packet, BROKEN), BROKEN, "fails and keeps that", fault=True)


def _judge(world: World, packet: Packet, bounds: Bounds) -> Iterator[Acted]:
    for said, after in _charge(world, packet, bounds) if packet.kind is Kind.CHARGE else _refund(world, packet):
        yield Acted(_remember(after, packet, said), said, said.word)
        if bounds.errors:
            yield Acted(_remember(after, packet, BROKEN), BROKEN, f"{said.word}, but fails", fault=True)


def _charge(world: World, packet: Packet, bounds: Bounds) -> Iterator[tuple[Said, World]]:
    number = len(world.booked)
    endings = [(APPROVED, packet.amount)]
    if bounds.partial:
        endings.append((APPROVED, 1))
    if bounds.declines:
        endings.append((DECLINED, packet.amount))
    if bounds.pending:
        endings.append((PENDING, packet.amount))
    for status, amount in endings:
        booked = (*world.booked, Booked(packet.key, status, amount))
        yield Said(status, number, amount), world._replace(booked=booked)


def _refund(world: World, packet: Packet) -> Iterator[tuple[Said, World]]:
    charge = world.booked[packet.charge]
    if charge.status != APPROVED:
        yield REFUSED, world
    elif charge.refunded + packet.amount > charge.amount:
        yield ABOVE, world
    else:
        after = charge._replace(
            refunded=charge.refunded + packet.amount, last_refund=packet.amount, last_key=packet.key
        )
        yield Said(APPROVED, packet.charge, packet.amount), change(world, packet.charge, after)


def _cancel(world: World, packet: Packet, bounds: Bounds) -> Iterator[Acted]:
    charge = world.booked[packet.charge]
    said = Said(APPROVED, packet.charge, packet.amount)
    if charge.status == CANCELED:
        yield Acted(world, said, "again")
    elif charge.status not in (APPROVED, PENDING) or charge.settled or charge.refunded:
        yield Acted(world, REFUSED)
    else:
        yield Acted(change(world, packet.charge, charge._replace(status=CANCELED)), said)
    if bounds.errors:
        yield Acted(world, BROKEN, "fails", fault=True)


def find(world: World, charge: int) -> Said:
    """What a look-up of one charge says."""
    found = world.booked[charge]
    word = found.status
    if word == APPROVED and found.refunded:
        word = "refunded" if found.refunded == found.amount else "partially_refunded"
    return Said(word, charge, found.amount)


def by_itself(world: World, bounds: Bounds) -> Iterator[tuple[Move, World]]:
    """What happens at the host whoever asks."""
    for number, charge in enumerate(world.booked):
        if charge.status == PENDING:
            for status in (APPROVED, DECLINED):
                after = charge._replace(status=status)
                yield Move("host decides", number, status), change(world, number, after)
        if charge.status == APPROVED and not charge.settled and bounds.settles:
            yield Move("host settles", number, fault=True), change(world, number, charge._replace(settled=True))
        if charge.last_refund and world.spent < bounds.refund_fails:
            after = charge._replace(refunded=charge.refunded - charge.last_refund, last_refund=0, last_key=UNKNOWN)
            failed = change(world, number, after)._replace(failing=charge.last_key, spent=world.spent + 1)
            yield Move("host fails a refund", number, fault=True), failed
        if charge.stands and not charge.settled and not charge.refunded and bounds.office:
            after = charge._replace(status=CANCELED, by_others=True)
            yield Move("back office cancels", number, fault=True), change(world, number, after)
        if charge.stands and world.shown is Shown.APPROVED and bounds.others:
            after = charge._replace(refunded=charge.refunded + 1, others=charge.others + 1)
            yield Move("somebody else refunds", number, fault=True), change(world, number, after)
    if bounds.revokes:
        if world.blocked:
            yield Move("host lets the device in again"), world._replace(blocked=False)
        else:
            yield Move("host revokes the device", fault=True), world._replace(blocked=True)
    if bounds.rotates and world.oldest == 0:
        yield Move("host supersedes the key set", fault=True), world._replace(oldest=1)


def change(world: World, number: int, charge: Booked) -> World:
    """The world with that charge in its place."""
    return world._replace(booked=(*world.booked[:number], charge, *world.booked[number + 1 :]))


def _remember(world: World, packet: Packet, said: Said) -> World:
    known = Known(packet.key, packet.version, said, late=world.age > Age.YOUNG)
    return world._replace(known=tuple(sorted((*world.known, known))))
