"""The parts of the terminal that judge by what is in the journal and what time it is, over a journal of the search.

``Exchange.circumstances`` and ``Asking.check`` are those that ship. They are given a journal of tuples, and for
each phase of time a moment that lies in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from sim.prove import records
from sim.prove.states import Age, Bounds, Record, Said, World
from terminal.asking import Asking
from terminal.course import Begin
from terminal.errors import HostAnswerInvalid
from terminal.exchange import Exchange
from terminal.fit import Answer, facts_of, reply_of
from terminal.payment import OPEN, REVERSAL, Happened, Kind, Payment, State
from terminal.recovery import Act, Circumstances, Reply, Sought, decide
from terminal.settings import HostSettings, Settings

WORDS = {
    "approved": Happened.APPROVED,
    "declined": Happened.DECLINED,
    "pending": Happened.PENDING,
    "canceled": Happened.CANCELED,
    "refunded": Happened.REFUNDED,
    "partially_refunded": Happened.REFUNDED_IN_PART,
}
OTHER_AMOUNT = 4
"""Of an answer that was meant for somebody else: more than was asked."""


class _Moment:
    """The time, as ``HostClock`` tells it."""

    def __init__(self) -> None:
        self.at = records.BEGUN

    def now(self) -> datetime:
        return self.at


class _Presence:
    """Whether the shopper is there, as ``terminal.presence`` tells it."""

    def __init__(self) -> None:
        self.present, self.lapsed = True, False

    def there(self, _payment: Payment) -> bool:
        return self.present

    def confirm_left(self, _payment: Payment) -> float:
        return 0.0 if self.lapsed else 1.0


class _Journal:
    """What ``terminal.journal`` tells, of the journal of one state."""

    id, seq, last_at = "a" * 32, 0, None

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.rows: records.Journal = ()

    def _all(self) -> list[Payment]:
        return [records.payment_of(slot, record, self._bounds) for slot, record in enumerate(self.rows)]

    def payment(self, payment_id: str) -> Payment:
        return self._all()[int(payment_id, 16)]

    def concerning(self, charge: Payment) -> list[Payment]:
        return [payment for payment in self._all() if payment.parent == charge.id]

    def charge_by_charge_id(self, charge_id: str) -> Payment | None:
        ours = (payment for payment in self._all() if payment.kind is Kind.CHARGE and payment.charge_id)
        return next((payment for payment in ours if payment.charge_id == charge_id), None)

    def count(self, _kind: Kind, _of: str) -> int:
        return len(self.rows)

    def knows(self, _payment_id: str) -> bool:
        return False  # the search numbers payments by itself

    def may_lack(self, _memory: timedelta) -> bool:
        return False  # wariness is what a search is told


class Shipped:
    """The terminal's judgement in any state of the search."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.settings = Settings(host=HostSettings(offers_lookup=bounds.lookup))
        self._clock, self._presence, self._journal = _Moment(), _Presence(), _Journal(bounds)
        missing = cast(Any, None)
        journal, clock = cast(Any, self._journal), cast(Any, self._clock)
        self._asking = Asking(missing, journal, clock, self.settings, missing, cast(Any, self._presence))

        async def make() -> Exchange:
            return Exchange(
                self._asking,
                missing,
                cast(Any, self._journal),
                cast(Any, self._clock),
                self.settings,
                lambda event: None,
                cast(Any, self._presence),
                missing,
            )

        self._exchange = asyncio.run(make())
        life = timedelta(seconds=self.settings.host.idempotency_life)
        self._moments = {
            Age.YOUNG: records.BEGUN + timedelta(minutes=20),
            Age.OLD: records.BEGUN + timedelta(hours=1),
            Age.UNSURE: records.BEGUN + life - timedelta(seconds=1),
            Age.FORGOTTEN: records.BEGUN + life + timedelta(hours=1),
        }
        self.keeps_clear = self._keeps_clear(life)
        """What is sent while the terminal relies on the host's memory arrives while the host remembers."""

    def looking(self, world: World) -> partial[Circumstances]:
        """For ``terminal.course``: what a decision depends on, in this state."""
        return partial(self._look, world)

    def moment(self, world: World) -> object:
        """All that ``looking`` depends on."""
        present = not world.gone and (world.asking or not world.waited)
        return present, world.age, world.lapsed, tuple((row.kind, row.state, row.parent) for row in world.journal)

    def left_to_a_person(self, world: World, slot: int) -> bool:
        """Whether a person has to decide, whatever a look-up brings."""
        payment = records.payment_of(slot, world.journal[slot], self._bounds)
        if payment.state not in OPEN:
            return False
        acts = {sought: decide(payment, self._look(world, payment, sought)) for sought in Sought}
        person = [acts[sought] is Act.ASK_PERSON for sought in Sought if sought is not Sought.NOT_YET]
        return acts[Sought.NOT_YET] is Act.ASK_PERSON or (all(person) and acts[Sought.NOT_YET] is Act.LOOK_UP)

    def child(self, world: World, begin: Begin) -> Payment:
        """The payment that undoes a charge."""
        self._stand(world)
        return self._numbered(world, self._exchange._undoing(begin))

    def asked(self, world: World, slot: int, kind: Kind, halves: int) -> Payment:
        """A refund or a cancel that the till asks for."""
        self._stand(world)
        charge = records.payment_of(slot, world.journal[slot], self._bounds)
        return self._numbered(world, self._exchange.child(charge, kind, records.money(halves), ""))

    def believes(
        self, world: World, payment: Payment, said: Said, *, looked_up: bool
    ) -> tuple[Reply, Mapping[str, Any]]:
        """What an answer says of a payment; SILENT where it does not fit."""
        self._stand(world)
        answer = Answer(
            happened=WORDS[said.word],
            charge_id=records.charge_name(said.charge),
            amount=None if payment.kind is Kind.CANCEL else records.money(said.amount),
            reference=payment.reference if payment.kind is Kind.CHARGE else None,
            at=records.BEGUN,
        )
        try:
            self._asking.check(payment, answer, looked_up=looked_up)
        except HostAnswerInvalid:
            return Reply.SILENT, {}
        facts = facts_of(payment, answer)
        return reply_of(payment, answer), {name: facts[name] for name in facts if name in ("charge_id", "approved")}

    def proves(self, world: World, payment: Payment) -> bool:
        """Whether to find nothing now is a proof that there will be nothing."""
        self._stand(world)
        now = self._clock.now()
        payment = replace(payment, sent_at=now if world.fresh else records.BEGUN)
        return self._asking._proof(payment, now) is Sought.NONE

    def is_of_another(self, world: World, payment: Payment, charge: int) -> bool:
        """Whether the journal has that charge of the host's for another payment's."""
        self._stand(world)
        known = self._journal.charge_by_charge_id(records.charge_name(charge))
        return known is not None and known.id != payment.id

    # -- below ----------------------------------------------------------------------------------------------

    def _look(self, world: World, payment: Payment, sought: Sought) -> Circumstances:
        self._stand(world)
        return self._exchange.circumstances(payment, sought)

    def _stand(self, world: World) -> None:
        self._journal.rows = world.journal
        self._clock.at = self._moments[world.age]
        self._presence.present = not world.gone and (world.asking or not world.waited)
        self._presence.lapsed = world.lapsed

    def _numbered(self, world: World, child: Payment) -> Payment:
        slot = len(world.journal)
        record = Record(
            child.kind,
            child.state,
            amount=records.halves(child.amount),
            parent=records.slot_of_name(child.parent),
            charge=records.charge_number(child.charge_id),
            reversal=child.reference == REVERSAL,
        )
        return records.payment_of(slot, record, self._bounds)

    def _keeps_clear(self, life: timedelta) -> bool:
        self._clock.at = records.BEGUN + life - timedelta(seconds=self.settings.host.request_life - 1)
        charge = records.payment_of(0, Record(Kind.CHARGE, State.IN_DOUBT), self._bounds)
        return not self._exchange.circumstances(charge, Sought.NOT_YET).remembered
