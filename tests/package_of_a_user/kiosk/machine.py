"""Sells one thing at a time, and takes money only for what came out."""

from __future__ import annotations

from collections.abc import Callable

from terminal.money import Amount
from terminal.payment import Outcome
from terminal.terminal import Terminal


class Machine:
    """``push_out`` turns the spiral of a slot and says whether something fell."""

    def __init__(self, till: Terminal, push_out: Callable[[int], bool]) -> None:
        self.till, self.push_out = till, push_out

    async def sell(self, slot: int, price: Amount, sale: str) -> bool:
        """Whether the shopper has paid and has it."""
        payment = await self.till.charge(price, reference=sale, hold=True)
        if payment.outcome is Outcome.PENDING:
            payment = await self.till.outcome(payment.id, timeout=30)
        if payment.outcome is not Outcome.APPROVED:
            if payment.outcome is Outcome.PENDING:
                self.till.abandon(sale)
            return False
        if not self.push_out(slot):
            await self.till.void(sale)
            return False
        await self.till.confirm(sale)
        return True
