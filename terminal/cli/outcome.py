"""What came of a payment, told at the end of a command: a line, and what to do next in another."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from terminal.cli.common import Common
from terminal.cli.failures import code_of
from terminal.cli.text import STATES, how_to_go_on, payment_facts, printable
from terminal.payment import TAKEN, UNRESOLVED, Kind, Payment, State


def show_outcome(common: Common, payment: Payment, code: int | None = None) -> int:
    """Tell it; the exit code, which is ``code`` or the payment's own."""
    code = code_of(payment) if code is None else code
    facts = {"event": "result", "payment": payment_facts(payment), "exit_code": code}
    common.screen.result(facts, tell(payment))
    return code


def tell(payment: Payment) -> Iterable[str]:
    """The outcome in a line, what to do next in others."""
    yield line(payment)
    if payment.duplicate_of:
        yield (
            f"Perhaps the same sale twice: the same card and amount as payment {payment.duplicate_of}, a little "
            "while ago."
        )
    yield from map(printable, _next(payment))


def line(payment: Payment) -> str:
    """The payment and where it stands, in a line."""
    amount = payment.approved or payment.amount
    details = [payment.masked_pan]
    if payment.reference and payment.kind is Kind.CHARGE:
        details.append(f"reference {payment.reference}")
    if payment.charge_id:
        details.append(f"charge {payment.charge_id}")
    if payment.authorization_code:
        details.append(f"authorization {payment.authorization_code}")
    if payment.response_code and payment.state in (State.DECLINED, State.LOST):
        details.append(f"response {payment.response_code}")
    if payment.message and payment.state not in TAKEN:  # what was said before the host answered is over then
        details.append(payment.message)
    told = f"{payment.kind.value} {STATES[payment.state]}: {amount}"
    return printable(", ".join([told, *filter(None, details)]))


def _next(payment: Payment) -> Iterable[str]:
    name, part = shlex.quote(payment.reference), payment.approved not in (None, payment.amount)
    if payment.state is State.HELD and part:
        yield (
            f"Approved in part, of {payment.amount}: till confirm {name} accepts it, till void {name} takes it "
            "back. Without a word it is taken back."
        )
    elif payment.state is State.HELD:
        yield (
            f"When the goods are out: till confirm {name}. If they are not: till void {name}. Without a word it is "
            "taken back."
        )
    elif payment.state is State.APPROVED and part:
        yield f"Approved in part, of {payment.amount}: take the rest otherwise, or till cancel {payment.charge_id}"
    elif payment.state is State.OFFLINE:
        yield "Approved here, without the host: it is sent when the host is back."
    elif payment.state in (State.ABANDONED, State.REVERSING):
        yield f"Nothing of it is to stand: till resolve --reference {name} goes on with that, and so does till run."
    elif payment.state in UNRESOLVED:
        yield f"Its outcome is not known yet. {how_to_go_on(payment.kind, payment.reference)}"
