from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from terminal import events
from terminal.cli.letters import LETTERS, ROWS, large
from terminal.cli.picture import Picture
from terminal.cli.screen import JsonScreen, LiveScreen, PlainScreen, open_screen
from terminal.cli.text import STATES, columns, printable
from terminal.cli.words import describe
from terminal.events import Event
from terminal.money import Amount
from terminal.payment import State

NOW = datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC)


def code(text: str = "K7M3NP", *, resumed: bool = False) -> events.PairingCodeShown:
    return events.PairingCodeShown(
        at=NOW, pairing_code=text, expires_at=NOW + timedelta(seconds=300), resumed=resumed
    )


def changed(state: str, kind: str = "charge") -> events.PaymentChanged:
    return events.PaymentChanged(
        at=NOW,
        payment_id="p1",
        kind=kind,
        state=state,
        reference="order-17",
        amount=Amount(1250, "EUR"),
        charge_id="ch_1",
        response_code="",
    )


RUN: list[Event] = [
    events.ClockMoved(at=NOW, seconds=3600.0),
    events.LevelReached(at=NOW, level="bootstrapped"),
    events.LevelReached(at=NOW, level="pairing"),
    code(),
    events.PairingPolled(at=NOW, seconds_left=296),
    events.LevelReached(at=NOW, level="claimed"),
    events.Downloading(at=NOW, what="terminal parameters", received=1024, total=34061),
    events.Downloading(at=NOW, what="terminal parameters", received=34061, total=34061),
    events.LevelLost(at=NOW, level="claimed", reason="token_expired"),
    events.CardWanted(at=NOW, amount=Amount(1250, "EUR"), reference="order-17"),
    events.CardRefused(at=NOW, reason="track 2 could not be read"),
    events.CardRefused(at=NOW, reason="the card breaks its protocol", advice="Insert it again."),
    events.CardRead(at=NOW, masked_pan="476173******0119", entry_mode="swipe"),
    changed("in_flight"),
    changed("approved"),
]

BETWEEN_PAYMENTS: list[Event] = [
    events.ClockRefused(at=NOW, said=NOW, floor=NOW, advice="Set the host's clock right."),
    events.DeviceClockJumped(at=NOW, seconds=-7200.0),
    events.HostLost(at=NOW, reason="it cannot be connected to"),
    events.HostBack(at=NOW, seconds=61.0),
    events.KeysRenewed(at=NOW, key_set_id="ks_1", expires_at=NOW),
    events.ConfigChanged(at=NOW, sections=("merchant", "intervals")),
    events.ParametersChanged(at=NOW, version="2025.12.2"),
    events.RefreshRefused(at=NOW, what="config", reason="it is of another terminal"),
    events.UpdateWanted(at=NOW, version="0.1.0"),
    events.ChoreFailed(at=NOW, chore="renew_keys", reason="the disk is full"),
]


TROUBLE: list[Event] = [
    events.SuspectedDuplicate(
        at=NOW, payment_id="p2", reference="order-18", duplicate_of="p1", earlier_reference="order-17"
    ),
    events.RestoredImageSuspected(at=NOW, payment_id="p1", reference="order-17"),
    events.Overdue(
        at=NOW,
        payment_id="p1",
        kind="charge",
        state="reversing",
        reference="order-17",
        amount=Amount(1250, "EUR"),
        seconds=660.0,
        person=True,
    ),
    events.OfflineLost(
        at=NOW, payment_id="p1", reference="order-17", amount=Amount(1250, "EUR"), response_code="51"
    ),
    events.RefundFailed(at=NOW, payment_id="r1", charge_id="ch_1", refund_id="rf_1", amount=Amount(1250, "EUR")),
]


def test_trouble_says_what_and_of_what() -> None:
    assert [describe(event) for event in TROUBLE] == [
        "perhaps the same sale twice: order-18 has the card and the amount of order-17, a little while ago",
        "the host has a charge order-17 that the journal does not know: was an old copy restored?",
        "OVERDUE: charge order-17 EUR 12.50: being taken back for 11 min; ask the host, then: "
        "till resolve p1 --as taken|not-taken --by NAME",
        "LOST: charge order-17 EUR 12.50 was approved here, and the host has declined it",
        "REFUND FAILED: EUR 12.50 of charge ch_1; the shopper has not had the money",
    ]


def test_who_watches_is_told_every_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    for screen in (PlainScreen(), open_screen(as_json=False, watching=True)):
        screen.event(changed("approved"))
    assert capsys.readouterr().out == "charge order-17 EUR 12.50: approved\n"


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    for done in range(41):
        screen.progress("comparing", done, 40)
    assert capsys.readouterr().out.splitlines() == [f"comparing: {n} of 40" for n in range(4, 40, 4)]
    JsonScreen().progress("comparing", 1, 40)
    assert json.loads(capsys.readouterr().out) == {
        "event": "progress",
        "what": "comparing",
        "done": 1,
        "total": 40,
    }


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for event in RUN:
        JsonScreen().event(event)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [events.as_dict(event) for event in RUN]
    assert told[3]["pairing_code"] == "K7M3NP"


def test_plain_text_says_each_thing_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    for event in RUN:
        screen.event(event)
    assert capsys.readouterr().out.splitlines() == [
        "clock: follows the host, +3600 s from where it was",
        "reached: bootstrapped",
        "reached: pairing",
        "pairing code K7M3NP: type it into the merchant's portal within 300 s",
        "not claimed yet, 296 s left",
        "reached: claimed",
        "downloading terminal parameters",
        "back to: claimed (token expired)",
        "Present your card: EUR 12.50 (order-17)",
        "card not read: track 2 could not be read",
        "card not read: the card breaks its protocol. Insert it again.",
        "card 476173******0119 (swipe)",
        "charge order-17 EUR 12.50: with the host",
    ]


def test_a_resumed_code_says_so() -> None:
    assert "still the same" in describe(code(resumed=True))


def test_every_event_is_told_or_left_out_on_purpose() -> None:
    told = {type(event).__name__ for event in RUN + BETWEEN_PAYMENTS + TROUBLE if describe(event)}
    assert told == {kind.__name__ for kind in Event.__subclasses__()}


def test_the_reason_of_a_refund_is_not_its_name() -> None:
    assert describe(changed("in_flight", "refund")) == "refund EUR 12.50: with the host"


def test_every_state_has_words() -> None:
    assert STATES.keys() == {state.value for state in State}


def test_strangers_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2J\r\nb\u202e") == "a?[2J??b?"
    assert describe(events.CardRefused(at=NOW, reason="\x1b[31mred")) == "card not read: ?[31mred"


def test_columns_line_up() -> None:
    assert columns([("a", "bb", "c"), ("dddd", "e", "")]) == ["a     bb  c", "dddd  e"]


def test_which_screen_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_screen(as_json=True), JsonScreen)
    assert type(open_screen(as_json=False)) is PlainScreen
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert type(open_screen(as_json=False)) is LiveScreen
    assert type(open_screen(as_json=False, plain=True)) is PlainScreen
    monkeypatch.setenv("TERM", "dumb")
    assert type(open_screen(as_json=False)) is PlainScreen


# -- large letters ----------------------------------------------------------------------------------------------


def test_the_alphabet_is_that_of_a_pairing_code() -> None:
    assert "".join(sorted(LETTERS)) == "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def test_letters_are_five_by_five_and_all_different() -> None:
    assert all(len(rows) == ROWS and {len(row) for row in rows} == {5} for rows in LETTERS.values())
    assert set("".join("".join(rows) for rows in LETTERS.values())) == {"#", "."}
    assert len(set(LETTERS.values())) == len(LETTERS)


def test_large_letters() -> None:
    assert large("LT", "#") == ["#      #####", "#        #", "#        #", "#        #", "#####    #"]
    assert large("l?") == ["l?"]


# -- the picture ------------------------------------------------------------------------------------------------


def picture(width: int = 100, height: int = 25) -> tuple[Picture, io.StringIO, list[float]]:
    stream, time = io.StringIO(), [0.0]
    console = Console(
        file=stream, force_terminal=True, width=width, height=height, highlight=False, color_system=None
    )
    return Picture(console, lambda: time[0]), stream, time


def test_a_whole_run_can_be_drawn() -> None:
    drawing, stream, _ = picture()
    for event in RUN:
        drawing.event(event)
    drawing.close()
    text = stream.getvalue()
    for words in (
        "bootstrapped",
        "Type K7M3NP",
        "Downloading",
        "Present your card",
        "Asking the host",
        "EUR 12.50",
    ):
        assert words in text
    assert large("K7M3NP")[2] in text or large("K7M3NP", "##")[2] in text


def test_progress_can_be_drawn() -> None:
    drawing, stream, _ = picture()
    drawing.progress("comparing", 0, 0)
    drawing.progress("comparing", 7, 40)
    drawing.close()
    assert "7 of 40" in stream.getvalue()


def test_the_seconds_run_down_between_polls() -> None:
    drawing, stream, time = picture()
    drawing.event(code())
    time[0] = 1.5
    drawing.event(events.ClockMoved(at=NOW, seconds=1.0))
    assert "300 s left" in stream.getvalue()
    assert "298 s left" in stream.getvalue()
    time[0] = 4.0
    drawing.event(events.PairingPolled(at=NOW, seconds_left=200))
    drawing.event(events.ClockMoved(at=NOW, seconds=1.0))
    drawing.close()
    assert "200 s left" in stream.getvalue()


def words(drawn: str) -> str:
    return " ".join(drawn.replace("│", " ").split())


@pytest.mark.parametrize(("width", "height"), [(20, 25), (40, 12), (50, 25), (80, 8), (200, 25), (200, 8)])
def test_a_small_terminal_shows_the_code_and_how_long_it_stands_all_the_same(width: int, height: int) -> None:
    drawing, stream, _ = picture(width, height)
    drawing.event(code())
    drawing.close()
    assert "Type K7M3NP into the merchant's portal: 300 s left" in words(stream.getvalue())


def test_large_letters_are_left_out_where_they_would_push_the_words_out() -> None:
    for height, there in ((12, False), (13, True)):
        drawing, stream, _ = picture(100, height)
        drawing.event(code())
        drawing.close()
        assert ("█" in stream.getvalue()) is there


def test_a_narrow_terminal_says_what_to_do_with_the_card() -> None:
    drawing, stream, _ = picture(21)
    drawing.event(events.CardWanted(at=NOW, amount=Amount(1250, "EUR"), reference="order-17"))
    drawing.close()
    assert "Present your card" in stream.getvalue()


def test_a_code_of_other_letters_is_shown_as_it_is() -> None:
    drawing, stream, _ = picture()
    drawing.event(code("a[bold]\x1bz"))
    drawing.close()
    assert "a[bold]?z" in stream.getvalue()


def test_a_live_screen_rests_before_a_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[str] = []

    class Drawing:
        def event(self, event: Event) -> None:
            drawn.append(events.name(event))

        def close(self) -> None:
            drawn.append("closed")
            raise OSError("the terminal is gone")

    monkeypatch.setattr("terminal.cli.picture.Picture", Drawing)
    screen = LiveScreen()
    screen.event(RUN[0])
    screen.result({}, ["done"])
    screen.close()
    assert drawn == ["clock_moved", "closed"]
    assert capsys.readouterr().out == "done\n"


# -- nobody reads -----------------------------------------------------------------------------------------------


def test_a_reader_that_went_away_changes_nothing(home: Path) -> None:
    program = "import sys, os\nfrom terminal.cli.entry import main\nsys.stdin.read()\nsys.exit(main())\n"
    with subprocess.Popen(
        [sys.executable, "-c", program, "status", "--home", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate("", timeout=60)
    assert (process.returncode, err) == (0, "")
