"""``till resolve`` and ``till outcomes``: what is open, and what nobody has heard of yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from terminal import finding
from terminal.cli.common import Common
from terminal.cli.failures import IN_DOUBT, OK
from terminal.cli.outcome import line
from terminal.cli.text import counted, payment_facts
from terminal.errors import PaymentRefused
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.payment import OPEN, Outcome, Payment

if TYPE_CHECKING:
    from terminal.terminal import Terminal


@click.command()
@click.argument("payment_id", required=False, metavar="[PAYMENT]")
@click.option("--reference", metavar="TEXT", help="The charge by your own name for it, in place of its id.")
@click.option(
    "--as",
    "found",
    type=click.Choice(["taken", "not-taken"]),
    help="What a person has found out at the host about a payment that the terminal cannot find out about.",
)
@click.option("--by", "who", metavar="NAME", help="Who found it out: kept in the journal.")
@click.option(
    "--charge-id", metavar="ID", help="With --as taken: the host's id of the charge, which is taken back."
)
@click.pass_obj
def resolve(
    common: Common,
    payment_id: str | None,
    reference: str | None,
    found: str | None,
    who: str | None,
    charge_id: str | None,
) -> int:
    """Go on with every open payment, one step each, and show what became of them (or of PAYMENT alone).

    Ends with 4 while something is open, else with 0. `till run` does the same in the background.
    """
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    named = payment_id is not None or reference is not None
    if payment_id is not None and reference is not None:
        raise click.UsageError("Say which payment once: its id, or its --reference.")
    if found is not None and not (named and who):
        raise click.UsageError("--as goes with the PAYMENT that it is about, and with --by NAME.")
    if found is None and (who or charge_id):
        raise click.UsageError("--by and --charge-id go with --as.")
    if charge_id and found != "taken":
        raise click.UsageError("--charge-id goes with --as taken.")

    async def work(till: Terminal) -> list[Payment]:
        wanted = _wanted(till.journal, payment_id, reference) if named else None
        if wanted is not None and found is not None:
            by_hand = till.settle_by_hand(
                wanted.id, taken=found == "taken", who=who or "", charge_id=charge_id or ""
            )
            if by_hand.state not in OPEN:
                return [by_hand]
        went_on = await till.resolve()
        return went_on if wanted is None else [till.journal.payment(wanted.id)]

    settings = load(common.home)
    payments = with_terminal(common, settings, secret_of(settings), work)
    still = sum(payment.state in OPEN for payment in payments)
    code = IN_DOUBT if still else OK
    if common.json:
        for payment in payments:
            common.screen.result({"event": "payment", "payment": payment_facts(payment)}, ())
    facts = {"event": "result", "payments": len(payments), "open": still, "exit_code": code}
    text = [line(payment) for payment in payments] or ["nothing is open"]
    if still:
        text.append(f"{counted(still, 'payment')} still open: run it again later, or leave it to till run")
    common.screen.result(facts, text)
    return code


@click.command()
@click.option("--acknowledge", is_flag=True, help="They have been heard: they are not listed again.")
@click.pass_obj
def outcomes(common: Common, acknowledge: bool) -> None:
    """List the outcomes that no till has acknowledged: what became of payments whose caller had gone.

    Asks for no passphrase, but with --acknowledge.
    """
    if acknowledge:
        from terminal.cli.prompts import secret_of
        from terminal.cli.session import load, with_terminal

        async def work(till: Terminal) -> list[Payment]:
            found = till.outcomes()
            _show(common, found)
            for payment in found:
                till.acknowledge(payment.id)
            return found

        settings = load(common.home)
        payments = with_terminal(common, settings, secret_of(settings), work)
    else:
        book = Journal.read(common.home / JOURNAL_FILE)
        try:
            payments = [payment for payment in book.outcomes() if payment.outcome is not Outcome.PENDING]
        finally:
            book.close()
        _show(common, payments)
    facts = {"event": "result", "outcomes": len(payments), "acknowledged": acknowledge, "exit_code": 0}
    told = f"{counted(len(payments), 'outcome')} {'acknowledged' if acknowledge else 'to be acknowledged'}"
    common.screen.result(facts, [told] if payments else ["no outcomes"])


def _show(common: Common, payments: list[Payment]) -> None:
    for payment in payments:
        common.screen.result({"event": "outcome", "payment": payment_facts(payment)}, [line(payment)])


def _wanted(journal: Journal, payment_id: str | None, reference: str | None) -> Payment:
    if payment_id is not None:
        if not journal.knows(payment_id):
            raise PaymentRefused(
                f"this terminal knows no payment {payment_id!r}",
                advice="`till journal --json` shows their ids; for a charge, --reference and your own name do too.",
            )
        return journal.payment(payment_id)
    return finding.charge(journal, reference or "")
