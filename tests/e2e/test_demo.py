"""The demo as a newcomer runs it, and what it says when the books do not agree."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from scripts.demo import Demo, main

pytestmark = pytest.mark.slow


def test_the_demo_ends_with_what_it_did_as_one_object():
    done = subprocess.run(
        [sys.executable, "scripts/demo.py", "--headless", "--json"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["activated"] is True
    assert told["levels"][-1] == "activated"
    assert [charge["state"] for charge in told["charges"]] == ["approved", "approved", "declined"]
    (refund,) = told["refunds"]
    assert 0 < int(refund["amount"]["value"]) < int(told["charges"][0]["amount"]["value"])
    assert len(told["cancels"]) == 1
    assert told["journal_equals_ledger"] is True
    assert done.stdout.count("\033") == 0


def test_interrupted_it_says_so_and_no_more(monkeypatch, capsys):
    def stopped(demo):
        raise KeyboardInterrupt

    monkeypatch.setattr(Demo, "run", stopped)
    monkeypatch.setattr(sys, "argv", ["scripts/demo"])
    assert main() == 130
    assert capsys.readouterr().err == "the demo was interrupted\n"


def test_one_altered_row_of_the_ledger_is_seen(tmp_path):
    class Altered(Demo):
        def payments(self, *common: str) -> None:
            super().payments(*common)
            ledger = sqlite3.connect(self.folder / "host" / "host.db")
            with ledger:
                assert ledger.execute("UPDATE refunds SET amount = amount - 1").rowcount == 1
            ledger.close()

    told = Altered(tmp_path, headless=True, quiet=True).run()
    assert told["activated"] is True
    assert told["journal_equals_ledger"] is False
