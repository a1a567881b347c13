"""``till status``: what is seen without a passphrase. Imports no cryptography, no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import click

from terminal import settings as settings_file
from terminal.cli.common import Common
from terminal.cli.text import columns, counted, payment_facts, sums
from terminal.clock import parse_rfc3339, rfc3339, system_now
from terminal.crypto import vault_file
from terminal.errors import KeystoreError
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.offline import Exposure, exposure_of


@click.command()
@click.pass_obj
def status(common: Common) -> None:
    """Show where the terminal stands. Asks for no passphrase."""
    vault = common.home / vault_file.FILE_NAME
    known = vault_file.read_facts(vault) if vault.exists() else {"level": "unprovisioned"}
    settings = settings_file.load(common.home)
    provisioned = vault.exists()
    unresolved = []
    if provisioned:
        book = Journal.read(common.home / JOURNAL_FILE)
        try:
            unresolved = book.unresolved()
        finally:
            book.close()
    exposure = exposure_of(unresolved, system_now())
    expires_at, renew_at = _moment(known, "key_set_expires_at"), _renewal(known, settings.renew_before)
    facts: dict[str, Any] = {
        "event": "result",
        "home": str(common.home),
        "level": known.get("level", "unknown"),
        "device_id": known.get("device_id"),
        "terminal_id": known.get("terminal_id"),
        "host": settings.host.url if provisioned else None,
        "reader": settings.reader,
        "key_set_id": known.get("key_set_id"),
        "key_set_expires_at": known.get("key_set_expires_at"),
        "key_set_renew_at": rfc3339(renew_at) if renew_at else None,
        "unresolved": [payment_facts(payment) for payment in unresolved],
        "offline": {
            "count": exposure.count,
            "total": [
                {"value": str(minor), "currency": currency} for currency, minor in sorted(exposure.total.items())
            ],
            "oldest": rfc3339(exposure.oldest) if exposure.oldest else None,
        },
        "exit_code": 0,
    }
    told = f"{counted(len(unresolved), 'payment')}: till journal --open, till resolve"
    rows = [
        ("level", str(facts["level"])),
        ("device", facts["device_id"] or "none: till provision"),
        ("terminal", facts["terminal_id"] or "none"),
        ("host", facts["host"] or "none"),
        ("reader", facts["reader"] or "none set"),
        ("key set", _key_set(facts["key_set_id"], expires_at, renew_at)),
        ("open", told if unresolved else "no payments"),
        ("offline", _exposed(exposure)),
        ("home", facts["home"]),
    ]
    common.screen.result(facts, columns(rows))


def _moment(known: Mapping[str, str], name: str) -> datetime | None:
    text = known.get(name)
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise KeystoreError(f"the vault's {name}, {text!r}, is no time") from None


def _renewal(known: Mapping[str, str], before: float) -> datetime | None:
    """When `till run` renews the key set: so many seconds before its end, at most half of its life."""
    expires_at, issued_at = _moment(known, "key_set_expires_at"), _moment(known, "key_set_issued_at")
    if expires_at is None:
        return None
    early = timedelta(seconds=before)
    return expires_at - (early if issued_at is None else min(early, (expires_at - issued_at) / 2))


def _key_set(key_set_id: str | None, expires_at: datetime | None, renew_at: datetime | None) -> str:
    if key_set_id is None or expires_at is None or renew_at is None:
        return "none"
    if expires_at <= system_now():
        return f"{key_set_id} expired {rfc3339(expires_at)}"
    return f"{key_set_id} until {rfc3339(expires_at)}, renewed from {rfc3339(renew_at)} on by till run"


def _exposed(exposure: Exposure) -> str:
    if exposure.oldest is None:
        return "nothing approved here waits for the host"
    return f"{counted(exposure.count, 'approval')} of {sums(exposure.total)} since {rfc3339(exposure.oldest)}"
