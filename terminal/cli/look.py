"""``till status`` and ``till journal``: what is seen without a passphrase. Imports no cryptography, no HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from terminal import settings as settings_file
from terminal.cli.common import Common
from terminal.cli.text import STATES, columns, payment_facts
from terminal.clock import parse_rfc3339, rfc3339, system_now
from terminal.crypto import vault_file
from terminal.errors import KeystoreError
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.payment import UNRESOLVED, Payment


@click.command()
@click.pass_obj
def status(common: Common) -> None:
    """Show where the terminal stands. Asks for no passphrase."""
    vault = common.home / vault_file.FILE_NAME
    known = vault_file.read_facts(vault) if vault.exists() else {"level": "unprovisioned"}
    settings = settings_file.load(common.home)
    provisioned = vault.exists()
    unresolved = _payments(common.home, only_open=True) if provisioned else []
    expires_at = known.get("key_set_expires_at")
    facts: dict[str, Any] = {
        "event": "result",
        "home": str(common.home),
        "level": known.get("level", "unknown"),
        "device_id": known.get("device_id"),
        "terminal_id": known.get("terminal_id"),
        "host": settings.host.url if provisioned else None,
        "reader": settings.reader,
        "key_set_id": known.get("key_set_id"),
        "key_set_expires_at": expires_at,
        "unresolved": [payment_facts(payment) for payment in unresolved],
        "exit_code": 0,
    }
    rows = [
        ("level", str(facts["level"])),
        ("device", facts["device_id"] or "none: till provision"),
        ("terminal", facts["terminal_id"] or "none"),
        ("host", facts["host"] or "none"),
        ("reader", facts["reader"] or "none set"),
        ("key set", _key_set(facts["key_set_id"], expires_at)),
        ("open", f"{len(unresolved)} payments: till journal --open" if unresolved else "no payments"),
        ("home", facts["home"]),
    ]
    common.screen.result(facts, columns(rows))


def _key_set(key_set_id: str | None, expires_at: str | None) -> str:
    if key_set_id is None or expires_at is None:
        return "none"
    try:
        expired = parse_rfc3339(expires_at) <= system_now()
    except ValueError:
        raise KeystoreError(f"the key set's expiry {expires_at!r} is no time") from None
    return f"{key_set_id} {'expired' if expired else 'until'} {expires_at}"


@click.command()
@click.option("--open", "only_open", is_flag=True, help="Only payments whose outcome is not known.")
@click.option("--verify", is_flag=True, help="Check every record against the one before it.")
@click.pass_obj
def journal(common: Common, only_open: bool, verify: bool) -> None:
    """List what was asked and what came of it, oldest first. Asks for no passphrase."""
    records = None
    book = Journal.read(common.home / JOURNAL_FILE)
    try:
        if verify:
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
        "unresolved": sum(payment.state in UNRESOLVED for payment in payments),
        "verified_records": records,
        "exit_code": 0,
    }
    text = _table(payments) if payments else ["no payments"]
    if records is not None:
        text.append(f"{records} records, each bound to the one before: the journal is whole")
    common.screen.result(facts, text)


def _payments(home: Path, *, only_open: bool) -> list[Payment]:
    book = Journal.read(home / JOURNAL_FILE)
    try:
        return book.unresolved() if only_open else book.payments()
    finally:
        book.close()


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
