"""``till journal``: the record, listed, checked, or set aside. Only the last of these loads cryptography."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terminal.cli.common import Common
from terminal.cli.failures import OK
from terminal.cli.outcome import line
from terminal.cli.text import STATES, columns, counted, payment_facts
from terminal.clock import rfc3339, system_now, system_random
from terminal.crypto import vault_file
from terminal.errors import JournalDamaged
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.payment import OPEN, Payment

if TYPE_CHECKING:
    from terminal.journal_care import SetAside


@click.command()
@click.option("--open", "only_open", is_flag=True, help="Only payments with which something is still to be done.")
@click.option("--verify", is_flag=True, help="Check every record against the one before it.")
@click.option("--set-aside", is_flag=True, help="Move a damaged journal away whole, and begin a new one.")
@click.pass_obj
def journal(common: Common, only_open: bool, verify: bool, set_aside: bool) -> None:
    """List what was asked and what came of it, oldest first. Asks for no passphrase.

    With --set-aside (which asks for it) the files of the journal are moved, not deleted, and a new journal begins
    with what the old one still proves. Nothing is ever rebuilt unasked.
    """
    if set_aside:
        if only_open or verify:
            raise click.UsageError("--set-aside stands alone.")
        _set_aside(common)
        return
    records, owner = None, ""
    book = Journal.read(common.home / JOURNAL_FILE)
    try:
        if verify:
            owner = _owner(common.home, book)
            records = book.verify()
        payments = book.unresolved() if only_open else book.payments()
    finally:
        book.close()
    if common.json:
        for payment in payments:
            common.screen.result({"event": "payment", "payment": payment_facts(payment)}, ())
    facts = {
        "event": "result",
        "payments": len(payments),
        "unresolved": sum(payment.state in OPEN for payment in payments),
        "verified_records": records,
        "verified_of": owner or None,
        "exit_code": OK,
    }
    text = _table(payments) if payments else ["nothing is open" if only_open else "no payments"]
    if records is not None:
        whole = f"{counted(records, 'record')}, each bound to the one before: the journal is whole"
        text.append(f"{whole}, and is that of {owner}")
    common.screen.result(facts, text)


def _owner(home: Path, book: Journal) -> str:
    """Whose journal it is, by the vault's public facts, which are not proved here: the vault is not opened.

    Raises JournalDamaged for one that is another terminal's, or older than the vault.
    """
    known = vault_file.read_facts(home / vault_file.FILE_NAME)
    owner = f"{known.get('device_id', 'a device without a name')} ({known.get('terminal_id', '-')})"
    if known.get("journal_id") != book.id:
        raise JournalDamaged(
            f"{book.path} is not the journal of {owner}: it is another terminal's",
            advice="Put this terminal's own journal back.",
        )
    least = known.get("journal_seq", "0")
    if least.isdigit() and book.seq < int(least):
        raise JournalDamaged(
            f"{book.path} has {counted(book.seq, 'record')}, and had {least} when the vault was last written: it "
            "is an old copy",
            advice="Put the newest copy back, or set this one aside: `till journal --set-aside`.",
        )
    return owner


def _set_aside(common: Common) -> None:
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load
    from terminal.crypto.vault import Vault
    from terminal.home import JOURNAL_ID
    from terminal.journal_care import set_aside
    from terminal.standing import JOURNAL_SEQ

    settings = load(common.home)
    with Vault.open(common.home / vault_file.FILE_NAME, secret_of(settings), random=system_random) as vault:
        done = set_aside(
            common.home / JOURNAL_FILE,
            vault.facts[JOURNAL_ID],
            now=system_now(),
            at_least=int(vault.facts.get(JOURNAL_SEQ, "0")),
        )
    common.screen.result(_facts_of(done), _told(done))


def _facts_of(done: SetAside) -> dict[str, Any]:
    return {
        "event": "result",
        "moved": [str(path) for path in done.moved],
        "report": str(done.report),
        "records": done.records,
        "breaks_at": done.breaks_at or None,
        "why": done.why,
        "payments": len(done.carried),
        "unresolved": [payment_facts(payment) for payment in done.unresolved],
        "unproved": list(done.unproved),
        "exit_code": OK,
    }


def _told(done: SetAside) -> list[str]:
    text = [f"set aside: {path}" for path in done.moved]
    proved = f"{counted(done.records, 'record')} proved"
    if done.breaks_at:
        text.append(f"{proved}, up to record {done.breaks_at}: {done.why}")
    else:
        text.append(f"{proved}: the chain holds to its end")
    text.append(f"the new journal begins with {counted(len(done.carried), 'payment')} of it")
    if done.unresolved:
        text.append(f"{counted(len(done.unresolved), 'payment')} open, which till resolve goes on with:")
        text += [f"  {line(payment)}" for payment in done.unresolved]
    if done.unproved:
        text.append(
            f"{counted(len(done.unproved), 'payment')} in what is not proved: ask the host about each (its "
            "idempotency key is the id)"
        )
        text += [f"  {payment_id}" for payment_id in done.unproved]
        text.append(f"these stand in {done.report}, too")
    text.append("Next: till reconcile")
    return text


def _table(payments: list[Payment]) -> list[str]:
    rows = [("when", "kind", "amount", "state", "reference", "card", "charge")]
    rows += [
        (
            rfc3339(payment.created_at),
            payment.kind.value,
            str(payment.approved or payment.amount),
            STATES[payment.state],
            payment.reference,
            payment.masked_pan,
            payment.charge_id or payment.id,
        )
        for payment in payments
    ]
    return columns(rows)
