from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hw.card import ManualCard
from hw.errors import TimedOut
from terminal.activation import Level
from terminal.cli.entry import main
from terminal.config import Config, Location, Merchant, TerminalIds
from terminal.errors import HostRefused, HostUnreachable, JournalUnwritable, NotReady
from terminal.events import Event, EventStream, LevelReached, PaymentChanged
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment, State
from terminal.settings import Settings

PAN = "4761739001010119"
AT = datetime(2025, 12, 13, tzinfo=UTC)
CHARGE = Payment(
    id="p1",
    kind=Kind.CHARGE,
    reference="order-17",
    amount=Amount(1250, "EUR"),
    created_at=AT,
    masked_pan="476173******0119",
    state=State.APPROVED,
    charge_id="ch_1",
    approved=Amount(1250, "EUR"),
    authorization_code="A1B2C3",
)


@dataclass
class Scripted:
    """Stands in for the terminal: notes what is asked of it, and ends as it is told."""

    home: Path
    ends: Payment | BaseException = CHARGE
    currency: str = "EUR"
    tells: tuple[Event, ...] = ()
    asked: list[tuple[str, Any]] = field(default_factory=list)
    settings: Settings | None = None
    level: Level = Level.ACTIVATED
    problem: NotReady | None = None
    waits: tuple[bool, bool] = (False, False)

    @asynccontextmanager
    async def open(self, settings: Settings, *, secret: object) -> AsyncIterator[Scripted]:
        """As ``Terminal.open``."""
        assert secret is not None
        self.settings = settings
        self._events = EventStream()
        self.journal = Journal.open(self.home / "journal.db")
        try:
            yield self
        finally:
            self.journal.close()
            self._events.close()

    @property
    def config(self) -> Config | None:
        """Where the currency comes from."""
        if not self.currency:
            return None
        return Config(TerminalIds("T", "D"), Merchant("m", "M"), Location(currency=self.currency))

    def events(self) -> AsyncIterator[Event]:
        """What ``tells`` holds, as it is asked."""
        return self._events.listen()

    def not_ready(self) -> NotReady | None:
        """As ``Terminal.not_ready``."""
        return self.problem

    def _end(self, what: str, asked: Any) -> Payment:
        self.asked.append((what, asked))
        for event in self.tells:
            self._events.emit(event)
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends

    async def charge(
        self,
        amount: Amount,
        *,
        reference: str,
        card: ManualCard | None,
        pin: str | None,
        tip: Amount | None,
        hold: bool,
        accept_partial: bool,
    ) -> Payment:
        """As ``Terminal.charge``."""
        self.waits = (hold, accept_partial)
        return self._end("charge", (amount, reference, card, pin, tip))

    async def refund(self, charge_id: str, amount: Amount | None, *, reason: str) -> Payment:
        """As ``Terminal.refund``."""
        return self._end("refund", (charge_id, amount, reason))

    async def cancel(self, charge_id: str) -> Payment:
        """As ``Terminal.cancel``."""
        return self._end("cancel", charge_id)

    async def activate(self) -> None:
        """As ``Terminal.activate``."""
        self._end("activate", None)


Till = Callable[..., int]


@pytest.fixture
def scripted(home: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    stand_in = Scripted(home)
    monkeypatch.setattr("terminal.cli.session.Terminal", stand_in)
    journal = Journal.open(home / "journal.db")
    journal.begin(replace(CHARGE, state=State.NEW, charge_id="", approved=None), SealedRequest("ks_1", b"{}"))
    journal.record("p1", Happened.APPROVED, AT, charge_id="ch_1", approved=Amount(1250, "EUR"))
    journal.close()
    return stand_in


@pytest.fixture
def till(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> Till:
    """Run ``till`` in this process, with this on stdin."""

    def run(*words: str, stdin: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return main(["--home", str(scripted.home), *words])

    return run


def in_flight(state: str = "in_flight") -> PaymentChanged:
    return PaymentChanged(
        at=AT,
        payment_id="p9",
        kind="charge",
        state=state,
        reference="order-17",
        amount=Amount(1250, "EUR"),
        charge_id="",
        response_code="",
    )


# -- amounts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "amount", "tip"),
    [
        (["12.50"], Amount(1250, "EUR"), None),
        (["12.50", "--currency", "USD"], Amount(1250, "USD"), None),
        (["--minor", "1250"], Amount(1250, "EUR"), None),
        (["1250", "--currency", "JPY"], Amount(1250, "JPY"), None),
        (["12.50", "--tip", "1.5"], Amount(1250, "EUR"), Amount(150, "EUR")),
        (["--minor", "1250", "--tip", "150"], Amount(1250, "EUR"), Amount(150, "EUR")),
    ],
)
def test_amounts(till: Till, scripted: Scripted, words: list[str], amount: Amount, tip: Amount | None) -> None:
    assert till("charge", *words, "--reference", "new") == 0
    assert scripted.asked == [("charge", (amount, "new", None, None, tip))]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["12.50", "--minor", "1250"],
        ["12,50"],
        ["0"],
        ["1.234"],
        ["12.50", "--currency", "XXQ"],
        ["12.50", "--tip", "12.50"],
        ["12.50", "--tip", "x"],
        ["--minor", "1250", "--tip", "1.50"],
        ["--minor", "0"],
        ["--minor", "9999999999999"],
        ["12.50", "--reader", "magstripe:///x", "--manual"],
        ["12.50", "--expiry", "12/28"],
    ],
)
def test_amounts_that_are_none(till: Till, scripted: Scripted, words: list[str]) -> None:
    assert till("charge", *words) == 2
    assert scripted.asked == []


def test_without_a_configuration_the_currency_has_to_be_said(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.currency = ""
    assert till("charge", "12.50") == 2
    assert "--currency" in capsys.readouterr().err


def test_a_terminal_that_takes_no_payments_says_why(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.problem = NotReady("the host has revoked the device", advice="Ask who runs the host.")
    assert till("charge", "12.50") == 2
    told = capsys.readouterr().err
    assert "revoked the device" in told
    assert "Ask who runs the host." in told
    assert scripted.asked == []


def test_a_reference_is_made_up_and_told(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert till("charge", "12.50") == 0
    assert till("charge", "12.50") == 0
    first, second = (asked[1][1] for asked in scripted.asked)
    assert first.startswith("till-")
    assert first != second


def test_the_reader_of_the_command_line_goes_first(till: Till, scripted: Scripted) -> None:
    assert till("charge", "12.50", "--reader", "magstripe:///dev/ttyUSB7") == 0
    assert scripted.settings is not None
    assert scripted.settings.reader == "magstripe:///dev/ttyUSB7"


@pytest.mark.parametrize(
    ("words", "waits"),
    [([], (False, False)), (["--hold"], (True, False)), (["--accept-partial"], (False, True))],
)
def test_what_an_approval_waits_for(
    till: Till, scripted: Scripted, words: list[str], waits: tuple[bool, bool]
) -> None:
    assert till("charge", "12.50", *words) == 0
    assert scripted.waits == waits


# -- the card at the keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "stdin", "pin"),
    [
        ([], f"{PAN}\n12/28\n", None),
        ([], f"{PAN[:4]} {PAN[4:8]} {PAN[8:12]} {PAN[12:]}\n2812\n", None),
        (["--expiry", "12/28"], f"{PAN}\n", None),
        (["--pin"], f"{PAN}\n12/28\n1234\n", "1234"),
    ],
)
def test_a_card_from_stdin(
    till: Till,
    scripted: Scripted,
    words: list[str],
    stdin: str,
    pin: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert till("charge", "12.50", "--manual", "--reference", "new", *words, stdin=stdin) == 0
    assert scripted.asked == [("charge", (Amount(1250, "EUR"), "new", ManualCard(PAN, "2812"), pin, None))]
    assert PAN not in "".join(capsys.readouterr())


@pytest.mark.parametrize("stdin", ["", f"{PAN}\n", f"{PAN[:-1]}8\n12/28\n", f"{PAN}\n13/28\n", "x\n12/28\n"])
def test_a_card_that_is_none_is_no_fault_of_the_reader(
    till: Till, scripted: Scripted, stdin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert till("charge", "12.50", "--manual", stdin=stdin) == 2
    assert scripted.asked == []
    assert PAN[:-1] not in capsys.readouterr().err


def test_for_a_payment_that_there_is_no_card_is_asked_for(till: Till, scripted: Scripted) -> None:
    assert till("charge", "12.50", "--manual", "--pin", "--reference", "order-17") == 0
    assert scripted.asked == [("charge", (Amount(1250, "EUR"), "order-17", None, None, None))]


def test_a_card_number_is_no_argument(till: Till) -> None:
    assert till("charge", "12.50", "--pan", PAN) == 2


# -- refunds and cancels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["refund", "ch_1"], ("refund", ("ch_1", None, "refund"))),
        (["refund", "ch_1", "5.00", "--reason", "cold"], ("refund", ("ch_1", Amount(500, "EUR"), "cold"))),
        (["refund", "ch_1", "--minor", "500"], ("refund", ("ch_1", Amount(500, "EUR"), "refund"))),
        (["refund", "--reference", "order-17"], ("refund", ("ch_1", None, "refund"))),
        (["refund", "--reference", "order-17", "5.00"], ("refund", ("ch_1", Amount(500, "EUR"), "refund"))),
        (["cancel", "ch_1"], ("cancel", "ch_1")),
        (["cancel", "--reference", "order-17"], ("cancel", "ch_1")),
    ],
)
def test_which_charge(till: Till, scripted: Scripted, words: list[str], asked: tuple[str, Any]) -> None:
    assert till(*words) == 0
    assert scripted.asked == [asked]


@pytest.mark.parametrize(
    "words",
    [
        ["refund"],
        ["refund", "--minor", "500"],
        ["refund", "ch_1", "5.00", "--minor", "500"],
        ["refund", "ch_1", "5.00", "--reference", "order-17"],
        ["refund", "ch_2"],
        ["refund", "--reference", "order-99"],
        ["cancel"],
        ["cancel", "ch_1", "--reference", "order-17"],
        ["cancel", "ch_2"],
    ],
)
def test_which_charge_is_not_said(till: Till, scripted: Scripted, words: list[str]) -> None:
    assert till(*words) == 2
    assert scripted.asked == []


@pytest.mark.parametrize(
    ("command", "wanted"), [("charge", "Say the amount"), ("refund", "Say which"), ("cancel", "Say which")]
)
def test_a_command_alone_is_told_what_it_lacks(
    scripted: Scripted, command: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    assert f"till: {wanted}" in capsys.readouterr().err
    assert scripted.asked == []


# -- how it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (State.APPROVED, 0),
        (State.DECLINED, 1),
        (State.REFUSED, 3),
        (State.WITHDRAWN, 4),
        (State.IN_DOUBT, 4),
        (State.PENDING, 4),
        (State.CANCELED, 1),
    ],
)
def test_the_exit_code_of_an_outcome(
    till: Till, scripted: Scripted, state: State, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.ends = replace(CHARGE, state=state)
    assert till("charge", "12.50", "--json") == code
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["event"], result["exit_code"], result["payment"]["state"]) == ("result", code, state.value)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HostRefused("pos/charge", 422, "4220", "no"), 3),
        (HostUnreachable("no connection"), 4),
        (NotReady("not activated"), 2),
        (TimedOut("no card"), 5),
        (ZeroDivisionError(), 70),
    ],
)
def test_the_exit_code_of_an_error(
    till: Till, scripted: Scripted, error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.ends = error
    assert till("charge", "12.50", "--json") == code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"] == type(error).__name__


@pytest.mark.parametrize("error", [JournalUnwritable("the disk is full"), ZeroDivisionError(), TimedOut("x")])
def test_an_error_after_the_payment_has_left_is_in_doubt(
    till: Till, scripted: Scripted, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.tells, scripted.ends = (in_flight(),), error
    assert till("charge", "12.50", "--json") == 4
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in out] == ["payment_changed", "error"]


def test_a_payment_that_was_settled_before_the_error(till: Till, scripted: Scripted) -> None:
    refused = HostRefused("pos/charge", 422, "4220", "no")
    scripted.tells, scripted.ends = (in_flight(), in_flight("refused")), refused
    assert till("charge", "12.50") == 3


def test_a_made_up_reference_is_told_where_it_is_needed_to_go_on(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.ends = replace(CHARGE, state=State.IN_DOUBT, reference="till-1a2b c")
    assert till("charge", "12.50") == 4
    assert "--reference 'till-1a2b c'" in capsys.readouterr().out
    scripted.tells, scripted.ends = (in_flight(),), ZeroDivisionError()
    assert till("charge", "12.50") == 4
    assert "--reference order-17" in capsys.readouterr().err


def test_ctrl_c_says_where_the_payment_is(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.tells, scripted.ends = (in_flight(),), KeyboardInterrupt()
    assert till("charge", "12.50") == 130
    assert "payment p9 is in the journal" in capsys.readouterr().err


def test_what_cannot_be_shown_does_not_undo_a_payment(
    till: Till, monkeypatch: pytest.MonkeyPatch, scripted: Scripted
) -> None:
    def fails(event: Event, *, watching: bool) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("terminal.cli.words.describe", fails)
    scripted.tells = (in_flight(), LevelReached(at=AT, level="activated"))
    assert till("charge", "12.50") == 0


def test_part_of_it_is_said(till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.ends = replace(CHARGE, approved=Amount(625, "EUR"))
    assert till("charge", "12.50") == 0
    out = capsys.readouterr().out
    assert "charge approved: EUR 6.25" in out
    assert "Approved in part, of EUR 12.50" in out


@pytest.mark.parametrize(
    ("facts", "code", "told"),
    [
        ({"state": State.HELD, "hold": True}, 0, "When the goods are out: till confirm order-17"),
        ({"state": State.HELD, "approved": Amount(625, "EUR")}, 4, "till confirm order-17 accepts it"),
        ({"state": State.OFFLINE}, 0, "sent when the host is back"),
        ({"state": State.REVERSING}, 4, "till resolve --reference order-17"),
        ({"state": State.ABANDONED}, 4, "till resolve --reference order-17"),
        ({"state": State.LOST, "response_code": "05"}, 1, "response 05"),
        ({"duplicate_of": "p0"}, 0, "as payment p0"),
    ],
)
def test_what_to_do_next(
    till: Till,
    scripted: Scripted,
    facts: dict[str, Any],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted.ends = replace(CHARGE, **facts)
    assert till("charge", "12.50") == code
    assert told in capsys.readouterr().out


def test_why_it_was_in_doubt_is_not_told_once_it_is_over(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    for state, told in ((State.IN_DOUBT, True), (State.CANCELED, False)):
        scripted.ends = replace(CHARGE, state=state, message="pos/charge: no answer in time")
        till("charge", "12.50")
        assert ("no answer in time" in capsys.readouterr().out) is told


def test_a_decline_is_told_with_its_reason(
    till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.ends = replace(CHARGE, state=State.DECLINED, response_code="51", message="Insufficient\x1b[2J funds")
    assert till("charge", "12.50") == 1
    out = capsys.readouterr().out
    assert "response 51" in out
    assert "Insufficient?[2J funds" in out


def test_activate(till: Till, scripted: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.tells = (LevelReached(at=AT, level="activated"),)
    assert till("activate", "--json") == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == [
        "level_reached",
        "result",
    ]


@pytest.mark.parametrize("words", ["activate", "charge 12.50", "refund ch_1", "cancel ch_1", "keys"])
def test_a_home_that_is_not_provisioned(tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--home", str(tmp_path / "none")]) == 2
    assert "till provision" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
