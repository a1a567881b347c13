"""A shop with a device of its own: its activated home, the commands that are run there, and both sides' books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sim.balance import differences, journal_rows, ledger_rows
from terminal import Terminal, load_settings
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from tests.e2e.bad_days import Days, Ran
from tests.e2e.hosted import TILL, call, pair_beforehand, provisioned

CARD = "5413330089010012\n12/28\n"


class Shop:
    """A device, its activated home, and what both sides have in their books."""

    def __init__(self, url: str, home: Path, days: Days) -> None:
        self.url, self.home, self.days = url, home, days
        self.device = provisioned(url, home)
        pair_beforehand(url, self.device)

    def activate(self) -> None:
        asyncio.run(self._activate())

    async def _activate(self) -> None:
        async with Terminal.open(load_settings(self.home)) as terminal:
            await terminal.activate()

    def charge(self, reference: str, *, file_limit: int | None = None, user: int | None = None) -> Ran:
        words = ("charge", "--minor", "1200", "--currency", "EUR", "--manual", "--reference", reference)
        return self.days.till(self.home, *words, typed=CARD, file_limit=file_limit, user=user)

    def taken(self, reference: str) -> int:
        """How often the host has charged for the reference."""
        return sum(charge["reference"] == reference for charge in self._ledger()["charges"])

    def check_books(self) -> None:
        """The chain holds, nothing is open, and the journal is the ledger."""
        with contextlib.closing(Journal.read(self.home / JOURNAL_FILE)) as journal:
            journal.verify()
            assert journal.unresolved() == []
            ours = journal_rows(journal.payments())
        assert differences(ours, ledger_rows(self._ledger(), self.device["terminal_id"])) == []

    def _ledger(self) -> dict[str, Any]:
        ledger = call(f"{self.url}/sim/ledger")
        mine = [each for each in ledger["charges"] if each["terminal_id"] == self.device["terminal_id"]]
        return {"charges": mine}

    def faults(self, *rules: dict[str, Any]) -> None:
        """What goes wrong from now on, for this device alone."""
        mine = [rule | {"match": rule.get("match", {}) | {"device_id": self.device["device_id"]}} for rule in rules]
        call(f"{self.url}/sim/faults", {"rules": mine})


@contextlib.contextmanager
def running(
    home: Path, *words: str, typed: str = "", before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """`till` as a process of its own, which is read from while it runs."""
    command = [*before, *TILL, "--json", "--home", str(home), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(typed)
            process.stdin.close()
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], event: str, **facts: str) -> dict[str, Any]:
    """Read on until the process says this event, with these facts."""
    assert process.stdout is not None
    for line in process.stdout:
        told: dict[str, Any] = json.loads(line)
        if told["event"] == event and facts.items() <= told.items():
            return told
    raise AssertionError(f"{event!r} was never said")
