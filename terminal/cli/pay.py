"""``till charge``, ``till refund`` and ``till cancel``.

A card number is never an argument nor taken from the environment, which other users and logs can see: it is
asked for without an echo, or read from stdin.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import click

from terminal.cli.common import Common
from terminal.cli.outcome import show_outcome
from terminal.errors import AmountError, CardDataError, PaymentRefused
from terminal.money import Amount
from terminal.payment import WITHOUT_EFFECT, Payment

if TYPE_CHECKING:
    from hw.card import ManualCard
    from terminal.journal import Journal
    from terminal.settings import Settings
    from terminal.terminal import Terminal

_STDIN = (
    "At a terminal it is asked for; otherwise stdin gives the card number, the expiry and the PIN, a line each."
)


@click.command()
@click.argument("amount", required=False)
@click.option("--minor", type=int, metavar="UNITS", help="The amount (and the tip) in minor units, instead.")
@click.option("--currency", metavar="CODE", help="ISO 4217; by default that of the terminal's location.")
@click.option(
    "--reference", metavar="TEXT", help="Your own name for this payment: asked again, it is not taken twice."
)
@click.option("--reader", metavar="URL", help="The reader, in place of the one in the settings.")
@click.option("--manual", is_flag=True, help="Type the card number, or give it on stdin.")
@click.option("--expiry", metavar="MM/YY", help="The expiry date, with --manual.")
@click.option("--pin", "with_pin", is_flag=True, help="Ask for the PIN (simulators and laboratories only).")
@click.option("--tip", metavar="AMOUNT", help="How much of the amount is a tip.")
@click.option(
    "--hold", is_flag=True, help="Approved, it waits for `till confirm`: for machines that hand out goods."
)
@click.option("--accept-partial", is_flag=True, help="Less than the amount is welcome, too.")
@click.pass_obj
def charge(
    common: Common,
    amount: str | None,
    minor: int | None,
    currency: str | None,
    reference: str | None,
    reader: str | None,
    manual: bool,
    expiry: str | None,
    with_pin: bool,
    tip: str | None,
    hold: bool,
    accept_partial: bool,
) -> int:
    """Take a payment of AMOUNT, as 12.50 or with --minor as 1250.

    Ends with 0 when it is approved and 1 when it is declined. After 4 run it again with the same --reference: it
    goes on with the payment that there is. Approved in part it is 4 as well, and held: `till confirm` accepts
    what there is, `till void` (or silence) takes it back.
    """
    import msgspec

    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    _one_of(amount, minor)
    if reader and manual:
        raise click.UsageError("Say either --reader or --manual.")
    if expiry and not manual:
        raise click.UsageError("--expiry goes with --manual.")
    if currency:
        _amount(amount, minor, currency)
    settings = load(common.home)
    if reader:
        settings = msgspec.structs.replace(settings, reader=reader)
    name = reference or f"till-{secrets.token_hex(4)}"
    secret = secret_of(settings)
    card, pin = _typed(settings, name, manual, expiry, with_pin)

    async def work(till: Terminal) -> Payment:
        code = currency or _currency(till)
        asked = _amount(amount, minor, code)
        of_it = None if tip is None else _tip(tip, minor is not None, asked)
        return await till.charge(
            asked, reference=name, card=card, pin=pin, tip=of_it, hold=hold, accept_partial=accept_partial
        )

    return show_outcome(common, with_terminal(common, settings, secret, work))


@click.command()
@click.argument("charge_id", required=False)
@click.argument("amount", required=False)
@click.option("--reference", metavar="TEXT", help="The charge by your own name for it, in place of its id.")
@click.option("--minor", type=int, metavar="UNITS", help="The amount in minor units, instead.")
@click.option("--reason", default="refund", show_default=True, metavar="TEXT", help="Why, for the host's books.")
@click.pass_obj
def refund(
    common: Common, charge_id: str | None, amount: str | None, reference: str | None, minor: int | None, reason: str
) -> int:
    """Give back AMOUNT of a charge, or all that is left of it.

    After 4 run it again, with the same amount and reason: it goes on with the refund that there is. After 0 the
    same words are another refund.
    """
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    if reference is not None and amount is None:
        # ``till refund --reference order-17 5.00``: the only word is the amount.
        charge_id, amount = None, charge_id
    if amount is not None:
        _one_of(amount, minor)
    _one_charge(charge_id, reference)

    async def work(till: Terminal) -> Payment:
        of = _find(till.journal, charge_id, reference)
        part = None if amount is None and minor is None else _amount(amount, minor, of.amount.currency)
        return await till.refund(of.charge_id, part, reason=reason)

    settings = load(common.home)
    return show_outcome(common, with_terminal(common, settings, secret_of(settings), work))


@click.command()
@click.argument("charge_id", required=False)
@click.option("--reference", metavar="TEXT", help="The charge by your own name for it, in place of its id.")
@click.pass_obj
def cancel(common: Common, charge_id: str | None, reference: str | None) -> int:
    """Void a charge before its settlement; after it, only a refund is left."""
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    _one_charge(charge_id, reference)

    async def work(till: Terminal) -> Payment:
        return await till.cancel(_find(till.journal, charge_id, reference).charge_id)

    settings = load(common.home)
    return show_outcome(common, with_terminal(common, settings, secret_of(settings), work))


# -- what was asked -------------------------------------------------------------------------------------------


def _one_of(amount: str | None, minor: int | None) -> None:
    if (amount is None) == (minor is None):
        raise click.UsageError("Say the amount once: as 12.50, or with --minor as 1250.")


def _one_charge(charge_id: str | None, reference: str | None) -> None:
    if (charge_id is None) == (reference is None):
        raise click.UsageError("Say which charge: its CHARGE_ID, or its --reference.")


def _amount(amount: str | None, minor: int | None, currency: str) -> Amount:
    return Amount(minor, currency) if minor is not None else Amount.parse(amount or "", currency)


def _tip(text: str, in_minor_units: bool, of: Amount) -> Amount:
    if in_minor_units and not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise AmountError(f"a tip of {text!r}: with --minor it is in minor units too")
    tip = Amount(int(text), of.currency) if in_minor_units else Amount.parse(text, of.currency)
    if tip.minor >= of.minor:
        raise AmountError(f"a tip of {tip} in an amount of {of}: the amount includes the tip")
    return tip


def _currency(till: Terminal) -> str:
    if (problem := till.not_ready()) is not None:
        raise problem
    config = till.config
    if config is None or not config.location.currency:
        raise AmountError("the amount has no currency, and the host gave none", advice="Say --currency EUR.")
    return config.location.currency


def _find(journal: Journal, charge_id: str | None, reference: str | None) -> Payment:
    if charge_id is not None:
        found = journal.charge_by_charge_id(charge_id)
    else:
        found = journal.charge_by_reference(reference or "")
    if found is None or not found.charge_id:
        raise PaymentRefused(
            f"this terminal has taken no charge {charge_id or reference!r}",
            advice="`till journal` lists its charges.",
        )
    return found


# -- the card at the keys -------------------------------------------------------------------------------------


def _typed(
    settings: Settings, reference: str, manual: bool, expiry: str | None, with_pin: bool
) -> tuple[ManualCard | None, str | None]:
    """The card and the PIN that a person types. Of a payment that there is already, nothing is asked for."""
    if not (manual or with_pin) or _is_standing(settings, reference):
        return None, None
    from hw.card import ManualCard
    from hw.errors import CardError

    card = None
    if manual:
        pan = re.sub("[ -]", "", _secret("Card number"))
        date = _expiry(expiry if expiry is not None else _visible("Expiry (MM/YY)"))
        try:
            card = ManualCard(pan, date)
        except CardError as error:
            # Typed, not read: no reader is to blame.
            raise CardDataError(str(error), advice=error.advice) from None
    return card, _secret("PIN") if with_pin else None


def _secret(what: str) -> str:
    from terminal.cli.prompts import ask_hidden, read_line, someone_is_there

    return ask_hidden(what, otherwise=_STDIN) if someone_is_there() else read_line(what, otherwise=_STDIN)


def _visible(what: str) -> str:
    from terminal.cli.prompts import ask, read_line, someone_is_there

    return ask(what, otherwise=_STDIN) if someone_is_there() else read_line(what, otherwise=_STDIN)


def _expiry(text: str) -> str:
    """YYMM out of MM/YY as it is on a card. YYMM is taken as it is: the other order has no such month."""
    month, slash, year = text.strip().partition("/")
    return f"{year}{month}" if slash else month


def _is_standing(settings: Settings, reference: str) -> bool:
    from pathlib import Path

    from terminal.journal import Journal
    from terminal.journal_file import FILE_NAME

    book = Journal.read(Path(settings.home) / FILE_NAME)
    try:
        known = book.charge_by_reference(reference)
    finally:
        book.close()
    return known is not None and known.state not in WITHOUT_EFFECT
