"""Everything but the terminal: the network, the till and its shopper, power, and time."""

from __future__ import annotations

from collections.abc import Iterator

from sim.prove import host, records
from sim.prove.courses import IDLE
from sim.prove.shipped import Shipped
from sim.prove.states import UNKNOWN, Age, Bounds, Move, Record, Shown, World
from sim.prove.terminal import Step, Terminal
from terminal.payment import PAYMENT, WITHOUT_EFFECT, Happened, Kind, Outcome, State

GIVES_UP = (Happened.LEFT, Happened.VOIDED)
"""What ``Terminal.abandon`` writes: the first that the state knows."""


def network(world: World, bounds: Bounds) -> Iterator[Step]:
    """Every request that is under way arrives now, arrives twice, or is lost."""
    for packet in world.packets:
        rest = tuple(other for other in world.packets if other is not packet)
        yield Step(Move("request is lost", packet.slot, fault=True), world._replace(packets=rest))
        if packet.awaited and world.answer is not None:
            continue
        for acted in host.take(world._replace(packets=rest), packet, bounds):
            after = acted.world
            if packet.awaited:
                after = after._replace(answer=acted.said)
            move = Move("request arrives", packet.slot, acted.how or acted.said.word, fault=acted.fault)
            yield Step(move, after)
            twin = packet._replace(awaited=False)
            if not packet.awaited or acted.said.word in ("superseded", "blocked"):
                continue
            doubled = after._replace(packets=tuple(sorted({*rest, twin})))
            yield Step(Move("request arrives, and a copy is under way", packet.slot, fault=True), doubled)


def power(world: World, bounds: Bounds) -> Iterator[Step]:
    """The power goes and comes back: what was in memory is lost, what was sent is not."""
    if not bounds.cuts:
        return
    packets = tuple(sorted({packet._replace(awaited=False) for packet in world.packets}))
    after = world._replace(
        course=IDLE, out=False, renewed=False, asking=False, result="", gone=False, packets=packets, answer=None
    )
    if after != world:
        yield Step(Move("power is cut", fault=True), after)


def time(world: World, bounds: Bounds, shipped: Shipped) -> Iterator[Step]:
    """Time passes while nothing runs. A call is over before what it sent is too old to arrive."""
    if world.course != IDLE or not world.journal:
        return
    if world.fresh:
        yield Step(Move("what was sent can no longer arrive"), world._replace(fresh=False, packets=()))
    if bounds.forgets and world.age is Age.YOUNG and not world.fresh:
        yield Step(Move("hours pass"), world._replace(age=Age.OLD))
    if world.age is Age.OLD:
        yield Step(Move("host may soon forget"), world._replace(age=Age.UNSURE))
    if world.age is Age.UNSURE and not (world.fresh and shipped.keeps_clear):
        late = tuple(known for known in world.known if known.late)
        yield Step(Move("host forgets"), world._replace(age=Age.FORGOTTEN, known=late))
    if world.age is Age.FORGOTTEN and world.known and not world.fresh:
        yield Step(Move("host forgets the rest", fault=True), world._replace(known=()))
    if not world.waited and not world.asking:
        yield Step(Move("shopper is thought to have left"), world._replace(waited=True))
    if not world.lapsed and any(record.state is State.HELD for record in world.journal):
        yield Step(Move("time to confirm is over"), world._replace(lapsed=True))


def till(world: World, bounds: Bounds, terminal: Terminal) -> Iterator[Step]:
    """A till, and the shopper before it: it asks, hears, gives up, confirms, and undoes what nobody saw."""
    slot = records.last_charge(world.journal)
    record = world.journal[slot] if slot != UNKNOWN else None
    if world.result:
        yield _hears(world, world.result)
        return
    if not world.left and world.shown is not Shown.APPROVED and bounds.leaves and world.attempts:
        yield Step(Move("shopper leaves", fault=True), world._replace(left=True))
    if world.left and record is not None and not world.gone:
        yield from _gives_up(world, bounds, slot, record)
    if world.course == IDLE and world.asking and record is not None:
        yield _hears(world, records.outcome(record) if record.state is not State.HELD else "held")
    if world.course != IDLE or world.asking:
        return
    if record is None or (record.state in WITHOUT_EFFECT and world.shown is Shown.DECLINED):
        if not world.left and world.attempts < bounds.attempts + (record is None and bounds.cuts):
            yield from _charges(world, terminal)
        return
    if record.state in (State.IN_FLIGHT, State.IN_DOUBT, State.PENDING) and not world.left:
        after = world._replace(asking=True, waited=False)
        yield Step(Move("till asks again", slot, fault=True), after)
    if record.state is State.HELD:
        yield from _confirms(world, bounds, slot)
    elif records.outcome(record) != Outcome.PENDING and world.shown is Shown.NOTHING and not world.wants:
        yield _hears(world, records.outcome(record))
    yield from _undoes(world, bounds, terminal, slot, record)


def _charges(world: World, terminal: Terminal) -> Iterator[Step]:
    payment = records.payment_of(len(world.journal), Record(Kind.CHARGE, State.NEW), terminal.bounds)
    after = world._replace(attempts=world.attempts + 1, shown=Shown.NOTHING)
    yield Step(Move("till charges", len(world.journal)), terminal.begin(after, payment))


def _hears(world: World, outcome: str) -> Step:
    after = world._replace(result="", asking=False)
    if outcome == Outcome.APPROVED and world.left:
        after = after._replace(wants="undo")
    elif outcome == Outcome.APPROVED:
        after = after._replace(shown=Shown.APPROVED)
    elif outcome == Outcome.DECLINED:
        after = after._replace(shown=Shown.DECLINED)
    return Step(Move("till hears", detail=outcome), after)


def _gives_up(world: World, bounds: Bounds, slot: int, record: Record) -> Iterator[Step]:
    happened = next((happened for happened in GIVES_UP if happened in PAYMENT.table[record.state]), None)
    if happened is None or record.state is State.OFFLINE:
        if world.asking and world.course == IDLE:
            yield Step(Move("till gives up waiting", slot), world._replace(asking=False))
        return
    payment = records.payment_of(slot, record, bounds)
    journal = records.written(world.journal, payment, happened, {}, world.keys, bounds)
    after = world._replace(journal=journal, gone=True, asking=False)
    yield Step(Move("till gives up", slot), after)
    if world.course != IDLE and world.asking:
        packets = tuple(sorted({packet._replace(awaited=False) for packet in world.packets}))
        hung_up = after._replace(course=IDLE, out=False, answer=None, packets=packets, renewed=False)
        yield Step(Move("till gives up and hangs up", slot), hung_up)


def _confirms(world: World, bounds: Bounds, slot: int) -> Iterator[Step]:
    payment = records.payment_of(slot, world.journal[slot], bounds)
    for happened, wanted in ((Happened.CONFIRMED, not world.left), (Happened.VOIDED, True)):
        if wanted:
            journal = records.written(world.journal, payment, happened, {}, world.keys, bounds)
            shown = Shown.APPROVED if happened is Happened.CONFIRMED else Shown.NOTHING
            move = Move(
                "till confirms" if happened is Happened.CONFIRMED else "till voids", slot, fault=not world.left
            )
            yield Step(move, world._replace(journal=journal, shown=shown))


def _undoes(world: World, bounds: Bounds, terminal: Terminal, slot: int, record: Record) -> Iterator[Step]:
    """By its own wish, or since the shopper had left before the approval was shown."""
    if record.state not in (State.APPROVED, State.PARTIALLY_REFUNDED):
        return
    children = [row for row in world.journal if row.parent == slot]
    if any(row.state in (State.IN_FLIGHT, State.IN_DOUBT, State.PENDING) for row in children):
        return
    canceled = any(row.kind is Kind.CANCEL and row.state is State.REFUSED for row in children)
    left = record.approved - record.refunded
    refunds = sum(row.kind is Kind.REFUND for row in children)
    for wish, kind, halves, fault in (
        ("cancel", Kind.CANCEL, record.approved, True),
        ("refund", Kind.REFUND, 1, True),
        ("undo", Kind.REFUND if canceled else Kind.CANCEL, left, False),
    ):
        asked = wish in bounds.asks and world.shown is Shown.APPROVED if fault else world.wants == wish
        if asked and not (kind is Kind.CANCEL and canceled) and refunds < 2 + bounds.refund_fails:
            payment = terminal.shipped.asked(world, slot, kind, halves)
            wants = world.wants if not fault else "asked"
            after = terminal.begin(world._replace(wants=wants), payment)
            yield Step(Move(f"till asks for a {kind.value}", slot, fault=fault), after)
