"""The terminal: performs the course that ships, a step at a time, as ``terminal.exchange`` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from sim.prove import host, records
from sim.prove.courses import IDLE, Courses, Input, Start
from sim.prove.shipped import OTHER_AMOUNT, Shipped
from sim.prove.states import ANY, UNKNOWN, Age, Bounds, Move, Packet, Said, World
from terminal.course import Begin, Do, Heard, Mended, Read, Write
from terminal.payment import OPEN, OUTCOMES, Happened, Kind, Payment, State
from terminal.recovery import Act, Reply, Sought
from terminal.refusals import Cause, Proof, proof_of
from terminal.turn import Turn


class Step(NamedTuple):
    """A move, the world after it, and what it breaks: empty where it breaks nothing."""

    move: Move
    world: World
    broken: str = ""


class Terminal:
    """All that a terminal may do next, in any state."""

    def __init__(self, bounds: Bounds, *, renews_meanwhile: bool) -> None:
        self.bounds, self._renews_meanwhile = bounds, renews_meanwhile
        self.shipped = Shipped(bounds)
        self.courses = Courses()

    def steps(self, world: World) -> Iterator[Step]:
        """What the terminal does by itself."""
        if world.course == IDLE:
            for slot, record in enumerate(world.journal):
                if record.state in OPEN:
                    yield from self._round(world, slot)
            yield from self._learn(world)
        else:
            yield from self._go_on(world)
        if self.bounds.rotates and world.keys == 0 and (world.course == IDLE or self._renews_meanwhile):
            broken = "the key set is renewed in the middle of a payment" if world.course != IDLE else ""
            yield Step(Move("terminal renews its keys", fault=True), world._replace(keys=1), broken)

    def begin(self, world: World, payment: Payment, *, asking: bool = True) -> World:
        """Start the course of a new payment. Its keys are younger than those before."""
        world = world._replace(age=Age.YOUNG, waited=False, lapsed=False, renewed=False, asking=asking, gone=False)
        wary = self.bounds.wary and payment.kind is Kind.CHARGE and self.bounds.lookup
        return world._replace(course=self._first(world, Start(payment, wary=wary)))

    def left_to_a_person(self, world: World, slot: int) -> bool:
        """Whether nothing that the terminal can ask will ever tell it more: of a refund that the host no longer
        remembers by its key, a charge of which something was given back says nothing.
        """
        if self.shipped.left_to_a_person(world, slot):
            return True
        record, payment = world.journal[slot], self._payment(world, slot)
        if record.kind is not Kind.REFUND or record.state not in (State.IN_FLIGHT, State.IN_DOUBT):
            return False
        forgotten = not self.shipped.looking(world)(payment, Sought.NOT_YET).remembered
        return forgotten and self._search(world, payment).word == "unclear"

    def _first(self, world: World, start: Start) -> int:
        return self.courses.begin(start, self.shipped.looking(world))[0]

    def _payment(self, world: World, slot: int) -> Payment:
        return records.payment_of(slot, world.journal[slot], self.bounds)

    def _round(self, world: World, slot: int) -> Iterator[Step]:
        position, _ = self.courses.begin(Start(self._payment(world, slot)), self.shipped.looking(world))
        if position != IDLE:
            vain = self.left_to_a_person(world, slot)
            move = Move("terminal begins a round", slot, fault=vain)
            yield Step(move, world._replace(course=position, renewed=False))

    def _learn(self, world: World) -> Iterator[Step]:
        """What is looked after between payments: refunds that the host has failed since."""
        slot = world.failing
        if slot == UNKNOWN or slot >= len(world.journal) or world.journal[slot].state is not State.APPROVED:
            return
        payment = self._payment(world, slot)
        journal = records.written(world.journal, payment, Happened.FAILED, {}, world.keys, self.bounds)
        yield Step(
            Move("terminal learns that a refund failed", slot), world._replace(journal=journal, failing=UNKNOWN)
        )

    # -- a course -------------------------------------------------------------------------------------------

    def _go_on(self, world: World) -> Iterator[Step]:
        effect = self.courses.effect(world.course)
        match effect:
            case Write():
                yield self._write(world, effect)
            case Read():
                found = self._payment(world, records.slot_of(effect.payment))
                yield Step(Move("terminal reads"), self._given(world, found))
            case Begin():
                child = self.shipped.child(world, effect)
                after = self._given(world._replace(age=Age.YOUNG), child)
                move = Move("terminal begins to undo", records.slot_of(effect.charge), effect.kind.value)
                yield Step(move, after)
            case Do() if not world.out and effect.act is Act.LOOK_UP:
                yield from self._look_up(world, effect)
            case Do() if not world.out:
                yield from self._send(world, effect)
            case Do() if world.answer is not None:
                yield from self._hear(world, effect, world.answer)
            case Do():
                late = any(packet.awaited for packet in world.packets)
                silent = self._heard(world, effect, Reply.SILENT)
                packets = tuple(sorted({packet._replace(awaited=False) for packet in world.packets}))
                move = Move("terminal waits no longer", records.slot_of(effect.payment), fault=late)
                yield Step(move, self._given(world._replace(out=False, packets=packets), silent))

    def _given(self, world: World, given: Input) -> World:
        """The course goes on with that. At its end the outcome is on its way to a till that waits."""
        position, ended = self.courses.onward(
            world.course, given, self.shipped.looking(world), self.shipped.moment(world)
        )
        world = world._replace(course=position)
        if ended is not None and world.asking and ended.kind is Kind.CHARGE:
            world = world._replace(result=OUTCOMES[ended.state].value if ended.state is not State.HELD else "held")
        if ended is not None and ended.kind is not Kind.CHARGE:
            world = world._replace(asking=False)
            if self._came_to_nothing(world):
                failing = UNKNOWN if world.failing == len(world.journal) - 1 else world.failing
                world = world._replace(journal=world.journal[:-1], failing=failing)
        return world

    def _came_to_nothing(self, world: World) -> bool:
        """It never arrived, or was refused for a reason that passes: all is as before, and it is begun anew.

        Such rows are left out, so that the journal has an end.
        """
        record = world.journal[-1]
        judged = any(known.key == len(world.journal) - 1 for known in world.known)
        if record.parent == UNKNOWN or judged:
            return False
        if record.state is State.REFUSED and world.journal[record.parent].state is not State.REVERSING:
            charge = world.booked[record.charge]
            lasts = charge.status != "approved" or charge.settled or charge.refunded
            return record.kind is Kind.REFUND or not lasts
        return record.state is State.WITHDRAWN

    def _write(self, world: World, effect: Write) -> Step:
        slot = records.slot_of(effect.payment)
        journal = records.written(
            world.journal, effect.payment, effect.happened, effect.facts, world.keys, self.bounds
        )
        after = world._replace(journal=journal)
        return Step(
            Move("terminal writes", slot, effect.happened.value), self._given(after, self._payment(after, slot))
        )

    def _heard(self, world: World, effect: Do, reply: Reply | Mended | None, **more: Any) -> Heard:
        slot = records.slot_of(effect.payment)
        payment = self._payment(world, slot) if slot < len(world.journal) else effect.payment
        return Heard(payment, reply, **more)

    # -- sending --------------------------------------------------------------------------------------------

    def _send(self, world: World, effect: Do) -> Iterator[Step]:
        slot = records.slot_of(effect.payment)
        first = not effect.sent_before and effect.act is Act.SEND and effect.payment.kind is Kind.CHARGE
        offline = self.bounds.offline and first
        failed = self._heard(world, effect, Reply.UNREACHABLE, offline=offline)
        yield Step(Move("terminal reaches nobody", slot, fault=True), self._given(world, failed))
        record = world.journal[slot] if slot < len(world.journal) else None
        payment = effect.payment
        resigned = world.renewed and effect.sent_before
        bodiless = payment.kind is Kind.CANCEL
        sealed = world.keys if record is None or bodiless else record.sealed
        packet = Packet(
            slot,
            records.key_of(payment),
            payment.kind,
            record.version if record is not None else 0,
            sealed,
            world.keys if resigned else sealed,
            records.charge_number(payment.charge_id),
            records.halves(payment.amount),
        )
        room = len(world.packets) < self.bounds.in_flight
        packets = tuple(sorted((*world.packets, packet))) if room else world.packets
        sent = world._replace(packets=packets, out=True, fresh=world.fresh or not bodiless)
        yield Step(Move("terminal sends", slot, effect.act.value), sent, self._breaks(world, effect, packet))

    def _breaks(self, world: World, effect: Do, packet: Packet) -> str:
        """What this sending breaks."""
        slot, act = packet.slot, effect.act
        if slot >= len(world.journal):
            return "a request leaves that the journal knows nothing of"
        record = world.journal[slot]
        if packet.key != slot and packet.kind is not Kind.CANCEL:
            return "a request leaves under another idempotency key than its payment's"
        if record.state not in (State.IN_FLIGHT, State.FORWARDING, State.ABANDONED):
            return f"a request leaves while the journal has its payment as {record.state}"
        if packet.kind is not Kind.CHARGE and packet.charge == UNKNOWN:
            return "what undoes a charge is sent without the host's id of it"
        if packet.kind is Kind.CHARGE:
            parted = world.gone or record.state is State.ABANDONED
            if parted and act is not Act.SEND_TO_CANCEL and record.state is not State.FORWARDING:
                return "what creates a payment is sent after the shopper has left"
            if act is Act.SEND_TO_CANCEL and self.bounds.lookup:
                return "the last resort is taken though the host can be asked"
        if act is Act.SEND and not effect.sent_before and packet.sealed != world.keys:
            return "the key set was renewed between the sealing of a request and its first sending"
        if packet.kind is not Kind.CANCEL:
            ours = [other for other in world.packets if other.slot == slot and other.signed >= world.oldest]
            versions = {known.version for known in world.known if known.key == packet.key}
            if (versions | {other.version for other in ours}) - {packet.version}:
                return "a retry has other bytes"
        return ""

    def _hear(self, world: World, effect: Do, said: Said) -> Iterator[Step]:
        """The answer arrives as it was said, or as one for another amount, or not at all."""
        slot = records.slot_of(effect.payment)
        heard = world._replace(out=False, answer=None)
        understand: Callable[[World, Do, Said], Iterator[tuple[World, Heard, bool]]] = (
            self._found if effect.act is Act.LOOK_UP else self._answered
        )
        for after, given, fault in understand(heard, effect, said):
            yield Step(Move("answer comes", slot, said.word, fault=fault), self._given(after, given))
        nothing = None if effect.act is Act.LOOK_UP else Reply.SILENT
        lost = self._given(heard, self._heard(heard, effect, nothing))
        yield Step(Move("answer is lost", slot, said.word, fault=True), lost)
        allowed = self.bounds.unfit == ANY or world.wrong < self.bounds.unfit
        if allowed and said.word == "approved" and effect.payment.kind is not Kind.CANCEL:
            counted = heard._replace(wrong=world.wrong + (self.bounds.unfit != ANY))
            other = said._replace(amount=OTHER_AMOUNT)
            for after, given, _ in understand(counted, effect, other):
                yield Step(
                    Move("answer for another amount comes", slot, said.word, fault=True), self._given(after, given)
                )

    def _answered(self, world: World, effect: Do, said: Said) -> Iterator[tuple[World, Heard, bool]]:
        """As ``terminal.asking`` takes it."""
        if said.word == host.SUPERSEDED.word and not world.renewed:
            renewed = world._replace(keys=1, renewed=True)
            yield renewed, self._heard(renewed, effect, Mended.KEYS), False
            yield world, self._heard(world, effect, Reply.REFUSED), True
        elif said.word in host.CAUSES:
            yield from self._refused(world, effect, host.CAUSES[said.word])
        elif said.word == host.BROKEN.word:
            yield world, self._heard(world, effect, Reply.SILENT), False
        else:
            reply, facts = self.shipped.believes(world, effect.payment, said, looked_up=False)
            yield world, self._heard(world, effect, reply, facts=facts), False

    def _refused(self, world: World, effect: Do, cause: Cause) -> Iterator[tuple[World, Heard, bool]]:
        """By the table that ships; what it leaves to the host is asked, and what it leaves to the time may be."""
        payment, hears, repeat = effect.payment, partial(self._heard, world, effect), effect.sent_before
        resigned = world.renewed and repeat
        match proof_of(cause, payment.kind, effect.act, repeat=repeat, resigned=resigned):
            case Proof.NEVER:
                yield world, hears(Reply.DISPROVED), False
            case Proof.NEVER_ONCE_KEYS_ARE_OVER:
                yield world, hears(Reply.DISPROVED), False
                yield world, hears(Reply.REFUSED), False
            case Proof.NEVER_IF_IT_STANDS:
                charge = world.booked[records.charge_number(payment.charge_id)]
                proved = not self.bounds.lookup or charge.status != host.CANCELED
                yield world, hears(Reply.DISPROVED if proved else Reply.REFUSED), False
            case Proof.CHARGE_TELLS:
                seen = self._search(world, payment) if self.bounds.lookup else Said("unclear")
                if seen.word == host.APPROVED:
                    reply, facts = self.shipped.believes(world, payment, seen, looked_up=True)
                    yield world, hears(reply, facts=facts), False
                yield world, hears(Reply.SILENT), seen.word == host.APPROVED  # then only if the look-up failed
            case Proof.NOTHING | Proof.KEY_SEEN:
                yield world, hears(Reply.SILENT), False
            case Proof.NOT_THIS_ONE:
                yield world, hears(Reply.REFUSED), False

    # -- looking up -----------------------------------------------------------------------------------------

    def _look_up(self, world: World, effect: Do) -> Iterator[Step]:
        slot = records.slot_of(effect.payment)
        if world.blocked:
            refused = self._heard(world, effect, None)
            yield Step(Move("terminal asks", slot, "blocked"), self._given(world, refused))
            return
        said = self._search(world, effect.payment)
        said = said._replace(proof=self.shipped.proves(world, effect.payment))
        yield Step(Move("terminal asks", slot, said.word), world._replace(out=True, answer=said))

    def _search(self, world: World, payment: Payment) -> Said:
        if payment.kind is Kind.REFUND:
            return self._search_refund(world, payment)
        if payment.charge_id:
            return host.find(world, records.charge_number(payment.charge_id))
        numbers = range(len(world.booked))
        ours = [number for number in numbers if not self.shipped.is_of_another(world, payment, number)]
        if len(ours) > 1:
            return Said("unclear")
        return host.find(world, ours[0]) if ours else Said("none")

    def _search_refund(self, world: World, payment: Payment) -> Said:
        """By its charge, as a lost answer had its id."""
        number = records.charge_number(payment.charge_id)
        charge, found = world.journal[records.slot_of_name(payment.parent)], host.find(world, number)
        if found.word == "approved":
            return Said("none")
        plain = found.word == "refunded" and charge.approved == records.halves(payment.amount)
        if plain and not charge.refunded:
            return Said("approved", number, charge.approved)
        return Said("unclear")

    def _found(self, world: World, effect: Do, said: Said) -> Iterator[tuple[World, Heard, bool]]:
        if said.word == "none":
            sought = Sought.NONE if said.proof else Sought.NONE_YET
            yield world, self._heard(world, effect, None, sought=sought), False
            return
        if said.word == "unclear" and effect.payment.kind is Kind.REFUND:
            yield world, self._heard(world, effect, None, sought=Sought.UNTOLD), False
            return
        reply = Reply.SILENT
        facts: Mapping[str, Any] = {}
        if said.word != "unclear":
            payment = self._payment(world, records.slot_of(effect.payment))
            reply, facts = self.shipped.believes(world, payment, said, looked_up=True)
        if reply is Reply.SILENT:
            yield world, self._heard(world, effect, None), False
        else:
            yield world, self._heard(world, effect, reply, facts=facts, sought=Sought.FOUND), False


def renews_meanwhile() -> bool:
    """Whether the turn that ships lets keys be renewed while a payment has it: tried, not believed."""

    async def attempt() -> bool:
        turn, renewed = Turn(), asyncio.Event()

        async def renew() -> None:
            renewed.set()

        async with turn:
            work = asyncio.create_task(turn.between(renew))
            for _ in range(10):
                await asyncio.sleep(0)
            meanwhile = renewed.is_set()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return meanwhile

    return asyncio.run(attempt())
