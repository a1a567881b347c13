"""``till confirm``, ``till void`` and ``till abandon``: what a till says of a charge after it was asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from terminal.cli.common import Common
from terminal.cli.failures import IN_DOUBT, OK
from terminal.cli.outcome import show_outcome
from terminal.payment import OPEN, UNRESOLVED, Payment, State

if TYPE_CHECKING:
    from terminal.terminal import Terminal


@click.command()
@click.argument("name", required=False, metavar="REFERENCE")
@click.option("--reference", metavar="TEXT", help="The same as an option.")
@click.pass_obj
def confirm(common: Common, name: str | None, reference: str | None) -> int:
    """Let a held charge stand: the goods are out, or a part of the amount is accepted."""
    of = _one(name, reference)
    return show_outcome(common, _said(common, lambda till: till.confirm(of)))


@click.command()
@click.argument("name", required=False, metavar="REFERENCE")
@click.option("--reference", metavar="TEXT", help="The same as an option.")
@click.pass_obj
def void(common: Common, name: str | None, reference: str | None) -> int:
    """Take a charge back, whatever state it is in. Ends with 0 when nothing of it stands, 4 while that is owed."""
    of = _one(name, reference)
    return _undone(common, _said(common, lambda till: till.void(of)))


@click.command()
@click.argument("name", required=False, metavar="REFERENCE")
@click.option("--reference", metavar="TEXT", help="The same as an option.")
@click.pass_obj
def abandon(common: Common, name: str | None, reference: str | None) -> int:
    """Say that the shopper has left: if the host has the charge, it is taken back; it is never made any more.

    A charge that is approved already stays so. Ends with 0 when the charge has come to its end, 4 while it has not.
    """
    of = _one(name, reference)

    async def work(till: Terminal) -> Payment:
        payment = till.abandon(of)
        if payment.state in UNRESOLVED or payment.state is State.REVERSING:
            return await till.void(of)  # the first try, at once
        return payment

    return _undone(common, _said(common, work))


def _one(name: str | None, reference: str | None) -> str:
    if (name is None) == (reference is None):
        raise click.UsageError("Say which charge, once: its REFERENCE.")
    return name or reference or ""


def _said(common: Common, work: Callable[[Terminal], Awaitable[Payment]]) -> Payment:
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    settings = load(common.home)
    return with_terminal(common, settings, secret_of(settings), work)


def _undone(common: Common, payment: Payment) -> int:
    return show_outcome(common, payment, IN_DOUBT if payment.state in OPEN else OK)
