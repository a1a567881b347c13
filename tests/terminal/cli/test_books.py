from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sim.world import World
from terminal.cli.entry import main
from terminal.settings import Settings
from terminal.terminal import Terminal

PAN = "4761739001010119"


@dataclass
class Shop:
    """A world with an activated terminal, and the command line in it."""

    world: World
    stdin: Callable[[str], None]
    capsys: pytest.CaptureFixture[str]
    changes: dict[str, Any]

    def till(self, *words: str, stdin: str = "") -> tuple[int, list[dict[str, Any]]]:
        """Run ``till --json``: the exit code, and what it told, without the events."""
        code, told = self.lines("--json", *words, stdin=stdin)
        objects = [json.loads(line) for line in told]
        return code, [line for line in objects if "at" not in line]

    def lines(self, *words: str, stdin: str = "") -> tuple[int, list[str]]:
        """The same for people."""
        self.stdin(stdin)
        code = main(["--home", str(self.world.home), *words])
        return code, self.capsys.readouterr().out.splitlines()

    def charge(self, amount: str, reference: str, *words: str) -> tuple[int, dict[str, Any]]:
        """A charge with a typed card."""
        what = ("charge", amount, "--reference", reference, "--manual", "--expiry", "12/28")
        code, told = self.till(*what, *words, stdin=f"{PAN}\n")
        return code, told[-1]

    def alter(self, sql: str, *values: object) -> None:
        """Change the host's books behind its back."""
        with self.world.ledger.transaction():
            done = self.world.ledger._connection.execute(sql, values)
        assert done.rowcount == 1


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with World(tmp_path) as world:
        made = Shop(
            world, lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text)), capsys, {"shopper_wait": 1}
        )

        async def begin() -> None:
            async with world.activated():
                pass

        class InTheWorld:
            @asynccontextmanager
            async def open(self, settings: Settings, *, secret: object) -> AsyncIterator[Terminal]:
                assert secret is not None
                async with world.terminal(**made.changes) as till:
                    yield till

        world.run(begin())
        (tmp_path / "credentials.d").mkdir()
        shutil.copy(tmp_path / "credentials", tmp_path / "credentials.d" / "tillwright")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials.d"))
        monkeypatch.setattr("terminal.cli.session.Terminal", InTheWorld())
        monkeypatch.setattr("terminal.cli.session.asyncio.run", world.run)
        capsys.readouterr()
        yield made


async def pass_time(seconds: float) -> None:
    """Nothing happens."""
    await asyncio.sleep(seconds)


def silent(world: World) -> None:
    """The host acts, and its answers to charges are lost."""
    world.fault({"match": {"call": "charge"}, "do": "drop_answer"})


def test_an_empty_journal_does_not_pass_for_books_that_agree(shop: Shop) -> None:
    assert shop.lines("reconcile") == (0, ["there are no payments in the journal to compare with the host"])


def test_books_that_agree_and_one_altered_row(shop: Shop) -> None:
    for n, amount in enumerate(("12.00", "20.00", "7.51", "9.99")):
        shop.charge(amount, f"order-{n}")
    assert shop.till("refund", "--reference", "order-1", "5.00")[0] == 0
    code, told = shop.till("reconcile")
    assert (code, told[-1]["payments"], told[-1]["differences"]) == (0, 5, 0)
    assert [line["done"] for line in told if line["event"] == "progress"] == [1, 3, 4, 5]
    shop.alter("UPDATE charges SET amount = amount + 1 WHERE reference = 'order-3'")
    code, told = shop.till("reconcile")
    assert code == 4
    (difference,) = [line for line in told if line["event"] == "difference"]
    assert difference["differences"] == ["amount"]
    assert difference["payment"]["reference"] == "order-3"
    assert difference["their_amount"] == {"value": "1000", "currency": "EUR"}
    assert told[-1]["by_kind"] == {"amount": 1}
    code, lines = shop.lines("reconcile")
    assert "order-3" in "\n".join(lines)
    assert "the host has another amount, EUR 10.00" in "\n".join(lines)
    assert lines[-1] == "5 payments compared with the host: 1 difference"


def test_a_row_that_is_gone_and_one_of_another_status(shop: Shop) -> None:
    shop.charge("12.00", "order-1")
    shop.charge("13.00", "order-2")
    shop.alter("DELETE FROM charges WHERE reference = 'order-1'")
    shop.alter("UPDATE charges SET canceled_at = 1 WHERE reference = 'order-2'")
    code, told = shop.till("reconcile")
    assert (code, told[-1]["by_kind"]) == (4, {"status": 1, "missing": 1})


def test_an_approval_that_was_written_off_is_taken_back(shop: Shop) -> None:
    shop.charge("7.51", "order-1")
    shop.alter("UPDATE charges SET outcome = 'approved' WHERE reference = 'order-1'")
    code, told = shop.till("reconcile")
    (difference,) = [line for line in told if line["event"] == "difference"]
    assert (code, difference["differences"], difference["written"]) == (4, ["late"], "late")
    assert difference["payment"]["state"] == "reversing"
    code, told = shop.till("resolve")
    assert (code, told[0]["payment"]["state"]) == (0, "canceled")
    code, told = shop.till("reconcile")
    assert (code, told[-1]["differences"]) == (0, 0)


def test_a_host_that_cannot_be_asked_says_so(shop: Shop) -> None:
    shop.charge("12.00", "order-1")
    shop.changes["host"] = {"offers_lookup": False}
    code, lines = shop.lines("reconcile")
    assert code == 2
    assert lines[-1] == "This host offers no look-up (host.offers_lookup): 1 payment could not be compared."


def test_only_some_days(shop: Shop) -> None:
    shop.charge("12.00", "order-1")
    day = shop.world.loop.now().date().isoformat()
    for words, compared in ((["--since", day], 1), (["--until", day], 1), (["--since", "2999-01-01"], 0)):
        code, told = shop.till("reconcile", "--zone", "UTC", *words)
        assert (code, told[-1]["payments"]) == (0, compared)


@pytest.mark.parametrize(
    "words",
    [
        ["--since", "yesterday"],
        ["--until", "2025-13-01"],
        ["--zone", "Europe/Nowhere"],
        ["--zone", "../x"],
        ["--since", "2025-12-14", "--until", "2025-12-13"],
    ],
)
def test_days_that_are_none(shop: Shop, words: list[str]) -> None:
    assert shop.till("reconcile", *words)[0] == 2


# -- totals -----------------------------------------------------------------------------------------------------


def test_the_totals_of_a_day(shop: Shop) -> None:
    shop.charge("12.00", "order-1")
    shop.charge("20.00", "order-2")
    shop.charge("7.51", "order-3")
    shop.till("refund", "--reference", "order-2", "5.00")
    day = shop.world.loop.now().date().isoformat()
    code, told = shop.till("totals", "--day", day, "--zone", "UTC")
    assert code == 0
    assert [(line["standing"], line["count"], line["sum"]["value"]) for line in told[:-1]] == [
        ("charged", 2, "3200"),
        ("not_taken", 1, "751"),
        ("refunded", 1, "500"),
    ]
    assert {(line["scheme"], line["entry_mode"]) for line in told[:-1]} == {("visa", "manual")}
    assert told[-1]["net"] == [{"value": "2700", "currency": "EUR"}]
    code, lines = shop.lines("totals", "--day", day, "--zone", "UTC")
    assert lines[-1] == f"{day}: net EUR 27.00"
    assert "EUR       visa    manual  charged    2      EUR 32.00" in lines


def test_a_device_whose_clock_is_behind_shows_the_day_of_its_latest_payments(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.charge("12.00", "order-1")
    today = shop.world.loop.now()
    monkeypatch.setattr("terminal.cli.books.system_now", lambda: today - timedelta(days=365))
    code, lines = shop.lines("totals", "--zone", "UTC")
    assert (code, lines[-1]) == (0, f"{today.date().isoformat()}: net EUR 12.00")


def test_the_totals_of_a_day_without_payments(shop: Shop) -> None:
    assert shop.lines("totals", "--day", "1999-12-31") == (0, ["no payments", "1999-12-31: net nothing"])
    assert shop.till("totals")[1][-1]["payments"] == 0


# -- what is open -----------------------------------------------------------------------------------------------


def test_an_answer_that_was_lost_is_looked_up(shop: Shop) -> None:
    shop.changes["shopper_wait"] = 600
    shop.world.fault({"match": {"call": "charge"}, "do": "drop_answer"}, {"do": "drop_request"})
    code, told = shop.charge("12.00", "order-1")
    assert (code, told["payment"]["state"]) == (4, "in_doubt")
    shop.world.fault()
    code, told = shop.charge("12.00", "order-1")
    assert (code, told["payment"]["state"]) == (0, "approved")
    assert len(shop.world.run(shop.world.books())) == 1


def test_of_one_whose_shopper_has_left_nothing_stands(shop: Shop) -> None:
    shop.world.fault({"match": {"call": "charge"}, "do": "drop_answer"}, {"do": "drop_request"})
    shop.charge("12.00", "order-1")
    shop.world.fault()
    shop.world.run(pass_time(60))
    code, told = shop.till("resolve")
    assert (code, told[0]["payment"]["state"]) == (0, "canceled")
    (charge,) = shop.world.run(shop.world.books())
    assert charge["status"] == "canceled"


def test_held_and_confirmed(shop: Shop) -> None:
    code, told = shop.charge("12.00", "order-1", "--hold")
    assert (code, told["payment"]["state"]) == (0, "held")
    assert shop.till("resolve", "--reference", "order-1")[0] == 4
    code, (told,) = shop.till("confirm", "order-1")
    assert (code, told["payment"]["state"]) == (0, "approved")


def test_held_and_voided(shop: Shop) -> None:
    shop.charge("12.00", "order-1", "--hold")
    code, (told,) = shop.till("void", "--reference", "order-1")
    assert (code, told["payment"]["state"]) == (0, "canceled")
    (charge,) = shop.world.run(shop.world.books())
    assert charge["status"] == "canceled"
    assert shop.till("confirm", "order-1")[0] == 2


def test_a_part_is_held_until_it_is_accepted(shop: Shop) -> None:
    code, told = shop.charge("10.30", "order-1")
    assert (code, told["payment"]["state"]) == (4, "held")
    assert shop.till("confirm", "order-1")[0] == 0
    code, told = shop.charge("10.30", "order-2", "--accept-partial")
    assert (code, told["payment"]["state"]) == (0, "approved")


@pytest.mark.parametrize("command", ["confirm", "void", "abandon"])
def test_which_charge_is_said_once(shop: Shop, command: str) -> None:
    assert shop.till(command)[0] == 2
    assert shop.till(command, "order-1", "--reference", "order-1")[0] == 2
    assert shop.till(command, "order-99")[0] == 2


def test_abandoned_means_canceled_wherever_it_is(shop: Shop) -> None:
    shop.changes["pending_wait"] = 0
    code, told = shop.charge("12.40", "order-1")
    assert (code, told["payment"]["state"]) == (4, "pending")
    code, (told,) = shop.till("abandon", "order-1")
    assert (code, told["payment"]["state"]) == (0, "canceled")


def test_resolving_shows_what_became_of_each(shop: Shop) -> None:
    assert shop.lines("resolve") == (0, ["nothing is open"])
    shop.charge("12.00", "order-1", "--hold")
    code, lines = shop.lines("resolve")
    assert code == 4
    assert lines[-2].startswith("charge held: EUR 12.00")
    assert lines[-1].startswith("1 payment still open")


@pytest.mark.parametrize(
    "words",
    [
        ["p1", "--reference", "order-1"],
        ["--as", "taken", "--by", "Anna"],
        ["p1", "--as", "taken"],
        ["p1", "--as", "perhaps", "--by", "Anna"],
        ["p1", "--by", "Anna"],
        ["p1", "--as", "not-taken", "--by", "Anna", "--charge-id", "ch_1"],
        ["--reference", "order-99"],
        ["p99"],
    ],
)
def test_resolving_what_is_not_there(shop: Shop, words: list[str]) -> None:
    code, told = shop.till("resolve", *words)
    assert code == 2
    if told[-1]["error"] == "PaymentRefused":
        assert "till journal" in told[-1]["advice"]


def test_a_person_decides(shop: Shop) -> None:
    silent(shop.world)
    shop.changes["host"] = {"offers_lookup": False, "idempotency_life": 60, "attempts": 1}
    code, told = shop.charge("12.00", "order-1")
    assert (code, told["payment"]["state"]) == (4, "in_doubt")
    payment_id = told["payment"]["id"]
    shop.world.run(pass_time(120))
    code, told_ = shop.till("resolve", payment_id)
    assert (code, told_[0]["payment"]["state"]) == (4, "abandoned")
    code, told_ = shop.till("resolve", payment_id, "--as", "not-taken", "--by", "Anna")
    assert (code, told_[0]["payment"]["state"]) == (0, "withdrawn")
    assert told_[0]["payment"]["note"].startswith("Anna")
    code, (refused,) = shop.till("resolve", payment_id, "--as", "not-taken", "--by", "Anna")
    assert (code, refused["advice"]) == (2, "It is over already.")


def test_outcomes_are_given_until_they_are_acknowledged(shop: Shop) -> None:
    shop.changes["acknowledgement"] = "explicit"
    shop.charge("12.00", "order-1")
    for words in ([], ["--acknowledge"]):
        code, told = shop.till("outcomes", *words)
        assert code == 0
        assert [line["payment"]["reference"] for line in told[:-1]] == ["order-1"]
    assert shop.lines("outcomes") == (0, ["no outcomes"])
