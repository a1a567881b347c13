"""The counter: what a till does with its terminal, step by step, and what the shopper in front of it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hw.card import ManualCard, StripeCard
from hw.errors import ReaderError
from hw.stripe import TRACK_2, play, read_card
from sim.reader.handed import HandedReader
from sim.reader.stripes import CARDS
from sim.soak import day as of
from sim.soak.history import History
from sim.soak.record import Record, Sale
from terminal.errors import HostRefused, JournalError, KeystoreError, PaymentRefused, TillError
from terminal.money import Amount
from terminal.payment import Kind, Outcome, Payment, State
from terminal.terminal import Terminal

PIN = "1234"
ASKS_AGAIN_AFTER = 10.0
"""Seconds after which a till that was told that it is pending asks for it again."""
ASKS_AGAIN = 3
"""So often it does so of what is to be given back or undone; the rest the terminal tells by itself."""
TRY_UNDOING_EVERY = 20.0
"""Seconds."""
UNDO = "-undo"
"""What the till adds to a reference for the refund of an approval that nobody saw."""
STRIPES: Mapping[str, StripeCard] = {
    name: read_card(None, play(TRACK_2, card.tracks[2]), None) for name, card in CARDS.items()
}
NEEDS_A_START = (JournalError, KeystoreError)
"""After one of these the program is started anew."""


class Counter:
    """``serve`` does a step; ``hear`` takes what the terminal has to say by itself. ``now`` is the world's time."""

    def __init__(self, record: Record, history: History, now: Callable[[], float]) -> None:
        self.record, self.history, self.now = record, history, now
        self.reader = HandedReader()
        self.asked_again: dict[str, of.Charge] = {}
        """Charges that the power cut short, whose shopper waits."""
        self.abandoned: dict[str, None] = {}
        """References whose shopper left while nobody could say so."""
        self.left_undone: dict[of.AnyStep, None] = {}
        """What else the power cut short: it is asked for once more, unless the terminal says how it ended."""
        self._serving: of.AnyStep | None = None
        self._undo_at = 0.0
        self.news = True
        """Something has happened to a payment since the terminal was last asked for outcomes."""

    async def serve(self, till: Terminal, step: of.AnyStep) -> None:
        """Do a step of the till's; raises what needs the program to be started anew."""
        act = _ACTS[type(step)]
        self._serving = step
        try:
            await act(self, till, step)
            self._serving = None
        except NEEDS_A_START as error:
            self._failed(step, error)
            raise
        except (TillError, ReaderError) as error:
            self._serving = None
            self._failed(step, error)

    def cut_short(self) -> None:
        """The program has ended in the middle of whatever it did."""
        step, self._serving = self._serving, None
        if isinstance(step, of.Refund | of.Cancel | of.Confirm | of.Void):
            self.left_undone[step] = None
        if not isinstance(step, of.Charge) or step.reference not in self.record.sales:
            return
        sale = self.record.sales[step.reference]
        if step.stays and sale.left is None:
            self.asked_again[step.reference] = step
        elif sale.saw is None:
            self.record.leave(sale, self.now())
            self.abandoned[step.reference] = None

    async def come_up(self, till: Terminal) -> None:
        """What a till does first when it has come up: it says who has left, and asks again for who has not."""
        self.news = True
        await self.hear(till)
        for reference in tuple(self.abandoned):
            self._abandon(till, reference)
            del self.abandoned[reference]
        for reference, step in tuple(self.asked_again.items()):
            del self.asked_again[reference]
            sale = self.record.sales[reference]
            if sale.saw is None:
                sale.left = None  # whatever has just been heard of it: they wait
            await self.serve(till, step)
        for undone in tuple(self.left_undone):
            del self.left_undone[undone]
            if not isinstance(undone, of.Refund) or all(told.reference != undone.name for told in self.record.told):
                await self.serve(till, undone)

    async def hear(self, till: Terminal) -> None:
        """Take the outcomes that the terminal has for its till, acknowledge them, undo what nobody saw."""
        now = self.now()
        fresh, self.news = self.news, False
        for payment in till.outcomes() if fresh else ():
            self._told(payment)
            till.acknowledge(payment.id)
            if payment.kind is Kind.REFUND and payment.state is State.APPROVED:  # the power went while it was asked
                self.record.undo.pop(payment.reference.removesuffix(UNDO), None)
        if self.record.undo and now >= self._undo_at:
            self._undo_at = now + TRY_UNDOING_EVERY
            for reference, charge_id in tuple(self.record.undo.items()):
                await self._undo(till, reference, charge_id)

    # -- the steps ------------------------------------------------------------------------------------------

    async def _charge(self, till: Terminal, step: of.Charge) -> None:
        sale = self.record.sales.get(step.reference)
        if sale is None:
            sale = self.record.sales[step.reference] = Sale(
                step.reference, step.minor, step.currency, self.now(), step.card, step.hold, step.accept_partial
            )
        stripe = STRIPES[step.card]
        self.reader.cards.clear()
        if not step.typed:
            self.reader.cards.append(stripe)
        asking = asyncio.ensure_future(self._asked(till, step, stripe))
        try:
            if step.leaves is not None:
                await asyncio.wait((asking,), timeout=step.leaves)
                if not asking.done():
                    await self._walk_out(till, step, sale, asking)
            self._told(await asking)
        except asyncio.CancelledError:
            if not asking.cancelled() or sale.left is None:
                raise
        except (TillError, ReaderError):
            self.record.leave(sale, self.now())
            self.abandoned[step.reference] = None
            raise
        finally:
            if not asking.done():
                asking.cancel()

        if sale.waits_until is not None and step.stays:
            await asyncio.sleep(ASKS_AGAIN_AFTER)
            await self._again(till, of.Again(reference=step.reference))

    async def _asked(self, till: Terminal, step: of.Charge, stripe: StripeCard) -> Payment:
        """The call itself, and what was sent meanwhile: by its end nobody else has had the turn."""
        began = len(self.record.sent)
        try:
            return await till.charge(
                Amount(step.minor, step.currency),
                reference=step.reference,
                card=ManualCard(stripe.pan, stripe.expiry) if step.typed else None,
                pin=PIN if step.pin else None,
                hold=step.hold,
                accept_partial=step.accept_partial,
            )
        finally:
            self.record.turns.append((began, len(self.record.sent)))

    async def _walk_out(self, till: Terminal, step: of.Charge, sale: Sale, asking: asyncio.Future[Payment]) -> None:
        self.history.add(self.now(), "shopper", "leaves", reference=step.reference, how=step.how)
        if step.how == "cancel" or not self._abandon(till, step.reference):
            asking.cancel()  # nothing of it has begun, or the till has no other word for it
            await asyncio.wait((asking,))
        if sale.saw is None:
            self.record.leave(sale, self.now())

    async def _again(self, till: Terminal, step: of.Again) -> None:
        sale = self.record.sales.get(step.reference)
        if sale is None or (sale.left is not None and sale.saw is None):
            return
        self.reader.cards.clear()
        self.reader.cards.append(STRIPES[sale.card])
        amount = Amount(step.minor or sale.minor, sale.currency)
        try:
            payment = await till.charge(
                amount, reference=step.reference, hold=sale.hold, accept_partial=sale.accept_partial
            )
        except PaymentRefused:
            if amount.minor == sale.minor:
                raise
            self.record.happened["refused another amount"] += 1
            return
        self._told(payment)

    async def _refund(self, till: Terminal, step: of.Refund) -> None:
        sale = self.record.sales.get(step.reference)
        known = self._approved(sale)
        if sale is None or known is None:
            return
        minor = max(1, known * step.permille // 1000)
        sale.given_back[step.name] = minor
        amount = Amount(minor, sale.currency)
        await self._until_known(lambda: till.refund(sale.charge_id, amount, reason=step.name))

    async def _cancel(self, till: Terminal, step: of.Cancel) -> None:
        sale = self.record.sales.get(step.reference)
        if sale is None or self._approved(sale) is None:
            return
        sale.undone = True
        await self._until_known(lambda: till.cancel(sale.charge_id))

    async def _confirm(self, till: Terminal, step: of.Confirm) -> None:
        sale = self.record.sales.get(step.reference)
        if sale is not None and sale.left is None and sale.saw is None and sale.charge_id:
            self._told(await till.confirm(step.reference))

    async def _void(self, till: Terminal, step: of.Void) -> None:
        sale = self.record.sales.get(step.reference)
        if sale is not None and sale.saw is None and sale.charge_id:
            sale.undone = True
            self.record.leave(sale, self.now())
            self._told(await till.void(step.reference))

    async def _wait(self, _till: Terminal, step: of.Wait) -> None:
        await asyncio.sleep(step.seconds)

    # -- below ----------------------------------------------------------------------------------------------

    async def _until_known(self, ask: Callable[[], Awaitable[Payment]]) -> None:
        """Ask, and ask for the same again while its outcome is not known: it is not to be done a second time."""
        for _ in range(ASKS_AGAIN):
            payment = await ask()
            self._told(payment)
            if payment.outcome is not Outcome.PENDING:
                return
            await asyncio.sleep(ASKS_AGAIN_AFTER)
        self._told(await ask())

    def _told(self, payment: Payment) -> None:
        self.record.tell(self.now(), payment)
        self.record.happened[f"{payment.kind} {payment.state}"] += 1
        self.history.add(
            self.now(),
            "till",
            "hears",
            kind=payment.kind,
            reference=payment.reference,
            state=payment.state,
            charge_id=payment.charge_id,
        )

    def _failed(self, step: of.AnyStep, error: Exception) -> None:
        word, what = step.__struct_config__.tag, type(error).__name__
        self.record.happened[f"{word} {what}"] += 1
        self.history.add(self.now(), "till", "is refused", step=word, error=what, says=str(error))

    def _approved(self, sale: Sale | None) -> int | None:
        """What the shopper was told was approved, in minor units; None where nothing was."""
        return None if sale is None or sale.saw is None or not sale.charge_id else sale.approved

    def _abandon(self, till: Terminal, reference: str) -> bool:
        """Say that the shopper has left; whether the terminal knows of any such charge."""
        try:
            self._told(till.abandon(reference))
        except PaymentRefused as error:
            self.history.add(self.now(), "till", "has nothing to abandon", reference=reference, says=str(error))
            return False
        return True

    async def _undo(self, till: Terminal, reference: str, charge_id: str) -> None:
        """Void it; refund it where it is too late for that; else try again later."""
        self.record.sales[reference].undone = True
        step = of.Void(reference=reference)
        try:
            payment = await till.void(reference)
        except NEEDS_A_START:
            raise
        except (HostRefused, PaymentRefused) as error:
            self._failed(step, error)
            if not charge_id:
                return
            refund = await self._refund_all(till, step, reference, charge_id)
            if refund is None:
                return
            payment = refund
        except TillError as error:
            self._failed(step, error)
            return
        self._told(payment)
        if payment.outcome is Outcome.DECLINED or payment.kind is Kind.REFUND:
            self.record.undo.pop(reference, None)

    async def _refund_all(self, till: Terminal, step: of.Void, reference: str, charge_id: str) -> Payment | None:
        try:
            payment = await till.refund(charge_id, reason=f"{reference}{UNDO}")
        except NEEDS_A_START:
            raise
        except TillError as error:
            self._failed(step, error)
            return None
        return payment if payment.state is State.APPROVED else None


_ACTS: Mapping[type, Callable[[Counter, Terminal, Any], Awaitable[None]]] = {
    of.Charge: Counter._charge,
    of.Again: Counter._again,
    of.Refund: Counter._refund,
    of.Cancel: Counter._cancel,
    of.Confirm: Counter._confirm,
    of.Void: Counter._void,
    of.Wait: Counter._wait,
}
"""What is the till's to do; the rest of a day is done to it."""
