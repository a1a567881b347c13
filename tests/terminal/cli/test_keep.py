from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from terminal.activation import Level
from terminal.cli.entry import main
from terminal.events import EventStream, HostBack
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import Kind, Payment

AT = datetime(2025, 12, 13, tzinfo=UTC)


@dataclass
class Kept:
    """Stands in for the terminal: tells something, then sends itself a signal, or fails."""

    home: Path
    sends: signal.Signals | None = signal.SIGTERM
    level: Level = Level.ACTIVATED
    ended: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, settings: object, *, secret: object) -> AsyncIterator[Kept]:
        """As ``Terminal.open``."""
        self._events = EventStream()
        self.journal = Journal.open(self.home / "journal.db")
        try:
            yield self
        finally:
            self.ended.append("closed")
            self.journal.close()
            self._events.close()

    def events(self) -> AsyncIterator[object]:
        """As ``Terminal.events``."""
        return self._events.listen()

    async def keep(self) -> None:
        """As ``Terminal.keep``."""
        self._events.emit(HostBack(at=AT, seconds=61.0))
        if self.sends is None:
            raise ZeroDivisionError
        os.kill(os.getpid(), self.sends)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append("kept")


@pytest.fixture
def kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    stand_in = Kept(home)
    monkeypatch.setattr("terminal.cli.session.Terminal", stand_in)
    return stand_in


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_it_is_told_to_end(
    kept: Kept, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.sends = number
    before = signal.getsignal(number)
    assert main(["run", "--home", str(kept.home)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "running, the terminal is activated",
        "host back, after 61 s",
        "ended",
    ]
    assert kept.ended == ["kept", "closed"]
    assert signal.getsignal(number) == before


def test_it_says_what_is_left_open(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal.open(kept.home / "journal.db")
    payment = Payment(id="p1", kind=Kind.CHARGE, reference="order-17", amount=Amount(1250, "EUR"), created_at=AT)
    journal.begin(payment, SealedRequest("ks_1", b"{}"))
    journal.close()
    assert main(["run", "--json", "--home", str(kept.home)]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in told] == ["running", "host_back", "result"]
    assert told[-1] == {"event": "result", "open": 1, "exit_code": 0}


def test_what_goes_wrong_is_no_clean_end(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.sends = None
    assert main(["run", "--home", str(kept.home)]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
