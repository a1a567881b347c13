"""The self-test: each step on each emulated reader, and what it says of those that are ill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hw import selftest
from hw.card import Card, EntryMode, SealedCard
from hw.errors import CardError, LineError, NoAnswer
from hw.reader import Address, Capabilities, Reader, open_reader
from hw.selftest import Report, SelfTest, Step
from sim.reader.ccid import Fault as CcidFault
from sim.reader.line import PtyLine
from sim.reader.pn532 import Fault as Pn532Fault
from sim.reader.presenting import PRESENTERS, Way
from sim.virtual_time import run as run_virtually

PLACES: dict[str, tuple[str, Way]] = {
    "pn532": ("pn532", "tap"),
    "gemcore": ("gemcore", "insert"),
    "acs-icc": ("acs", "insert"),
    "acs-picc": ("acs", "tap"),
    "magstripe": ("magstripe", "swipe"),
    "vivopay": ("vivopay", "tap"),
}
LEFT_THERE = {"magstripe", "vivopay"}
"""Where a card that is left there comes again: a wait without one cannot be tried."""
CHIPS = {"pn532", "gemcore", "acs-icc", "acs-picc"}


async def report_on(
    place: str,
    *,
    card: bool = True,
    seconds: float | None = 30.0,
    ill: Callable[[Any], object] = lambda _: None,
) -> tuple[Report, list[str], list[Step]]:
    """The report on an emulated reader; what a person was told, and the steps as they were shown."""
    driver, way = PLACES[place]
    line = PtyLine()
    presenter = PRESENTERS[driver](line, (way,))
    running = asyncio.create_task(presenter.run())
    presenting = None
    if card and way == "swipe":
        presenting = asyncio.create_task(presenter.swipe_at_once("visa-credit"))
    elif card:
        await presenter.present("visa-credit", way)
    ill(presenter.reader)
    told: list[str] = []
    shown: list[Step] = []
    try:
        clock = asyncio.get_running_loop().time
        steps = SelfTest(
            open_reader(presenter.url), clock, card_seconds=seconds, tell=told.append, shown=shown.append
        )
        return await steps.run(), told, shown
    finally:
        await line.close()
        running.cancel()
        if presenting is not None:
            presenting.cancel()
            await asyncio.wait([presenting])
        await asyncio.wait([running])


@pytest.mark.parametrize("place", PLACES)
def test_every_emulated_reader_passes_every_step(place: str) -> None:
    report, told, shown = asyncio.run(report_on(place))
    assert report.passed, report.lines
    left_out = {step.name for step in report.steps if step.state == "left out"}
    assert left_out <= ({"a wait ends on time", "a wait can be called off"} if place in LEFT_THERE else set())
    assert {step.state for step in report.steps} <= {"passed", "left out"}
    names = [step.name for step in report.steps]
    assert ("the card is read" in names) == (place in CHIPS)
    assert ("the line is clean" in names) == (place != "magstripe")
    assert told == ["Swipe a card now." if place == "magstripe" else "Present a card now, and leave it there."]
    assert shown == report.steps
    text = "\n".join(report.lines)
    assert text.endswith("everything passed")
    assert f"reader        {report.url}" in text
    assert "4761739001010119" not in text
    assert report.facts["passed"] is True
    assert report.facts["driver"] == PLACES[place][0]
    assert report.facts["numbers"]["frames"]["in"] > 0
    if place != "magstripe":
        times = report.facts["numbers"]["round_trip_ms"]
        assert 0 < times["min"] <= times["median"] <= times["max"]


def test_a_card_that_lies_there_all_the_same_is_to_be_taken_away() -> None:
    report, told, _ = asyncio.run(report_on("gemcore", seconds=None))
    assert told == []
    (wait,) = (step for step in report.steps if step.name == "a wait ends on time")
    assert (wait.state, wait.detail) == ("left out", "a card was there; take it away, and test again")


def test_without_a_card_that_part_is_left_out_and_the_rest_passes() -> None:
    report, told, _ = asyncio.run(report_on("pn532", card=False, seconds=None))
    assert report.passed
    assert told == []
    assert [step.name for step in report.steps if step.state == "left out"] == ["a card comes"]
    assert report.about["firmware"] == "PN532 1.6"


def test_nobody_who_presents_a_card_is_a_failure_and_the_rest_is_tested() -> None:
    report, _, _ = asyncio.run(report_on("gemcore", card=False, seconds=0.05))
    failed = [step for step in report.steps if step.state == "failed"]
    assert [step.name for step in failed] == ["a card comes"]
    assert "no card within" in failed[0].detail
    assert failed[0].advice
    assert report.steps[-1].name == "the line is clean"
    assert report.lines[-1] == "NOT everything passed"


def test_a_reader_that_is_pulled_out_fails_from_there_on() -> None:
    report, _, _ = asyncio.run(report_on("pn532", ill=lambda reader: reader.misbehave(Pn532Fault.UNPLUG, 0x02)))
    assert not report.passed
    assert [step.state for step in report.steps] == ["failed"]
    assert "the device is gone" in report.steps[0].detail


def test_a_card_that_is_torn_out_while_it_is_read_is_said_so() -> None:
    report, _, _ = asyncio.run(report_on("acs-icc", ill=lambda reader: reader.misbehave(CcidFault.SPLIT)))
    assert report.passed
    report, _, _ = asyncio.run(report_on("pn532", ill=lambda reader: reader.tear()))
    (failed,) = [step for step in report.steps if step.state == "failed"]
    assert failed.name == "the card is read"
    assert "the card was taken away" in failed.detail


def test_a_line_on_which_much_goes_wrong_is_not_clean() -> None:
    def ill(reader: Any) -> None:
        reader.misbehave(Pn532Fault.BAD_CHECKSUM, times=5)

    report, _, _ = asyncio.run(report_on("pn532", ill=ill))
    assert not report.passed
    assert report.steps[-1].name == "the line is clean"
    assert "not answered well: 5" in report.steps[-1].detail
    assert report.numbers["errors"]["FramingError"] == 5
    assert "cable" in report.steps[-1].advice


def test_a_few_bad_frames_pass_and_are_told() -> None:
    report, _, _ = asyncio.run(report_on("pn532", ill=lambda reader: reader.misbehave(Pn532Fault.BAD_CHECKSUM)))
    assert report.passed
    assert "not answered well: 1" in report.steps[-1].detail


class Scripted(Reader):
    """A reader without a line that does as it is told."""

    def __init__(self, outcome: Card | Exception | None = None, opens: Exception | None = None) -> None:
        super().__init__(Address("scripted:///dev/ttyNowhere", "scripted", "/dev/ttyNowhere", {}))
        self._outcome, self._opens = outcome, opens

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(stripe=True, encrypts=True)

    async def open(self) -> None:
        if self._opens is not None:
            raise self._opens

    async def _one_card(self) -> Card:
        if self._outcome is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    async def _next_card(self, link: object) -> Card:
        return await self._one_card()


def steps_of(reader: Reader) -> Report:
    async def main() -> Report:
        return await SelfTest(reader, asyncio.get_running_loop().time).run()

    return run_virtually(main())


def test_what_does_not_open_is_not_tested_further() -> None:
    error = NoAnswer("scripted:///dev/ttyNowhere: no answer to ping within 1 s")
    report = steps_of(Scripted(opens=error))
    assert [(step.name, step.state, step.detail) for step in report.steps] == [
        ("opens and answers", "failed", str(error))
    ]
    assert report.steps[0].advice == NoAnswer.advice
    assert report.lines[-1] == "NOT everything passed"


def test_sealed_and_unreadable_cards_are_described() -> None:
    sealed = SealedCard(
        scheme="dukpt-aes", ksn=bytes(12), data=b"secret", masked_pan="4761********0119", entry_mode=EntryMode.SWIPE
    )
    report = steps_of(Scripted(sealed))
    assert "4761********0119, encrypted by the reader (dukpt-aes)" in "\n".join(report.lines)
    report = steps_of(Scripted(CardError("track 2 could not be read")))
    assert [step.state for step in report.steps] == ["passed", "failed", "left out", "left out", "passed"]
    assert "take it away" not in "\n".join(report.lines)
    assert steps_of(Scripted()).steps[1].state == "failed"


def test_round_trips_of_an_adapter_that_holds_bytes_back_are_pointed_out() -> None:
    reader = Scripted(opens=None)
    reader.statistics.frames_out = 10
    reader.statistics.round_trips.extend([0.0161, 0.0165, 0.017])
    report = steps_of(reader)
    assert "latency timer" in report.steps[-1].advice


def test_the_adapters_latency_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest.finding, "latency", lambda path: 16)
    assert selftest.about_line(Scripted())["latency"] == "16 ms"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gemcore:///dev/ttyNowhere?echo=yes", ("/dev/ttyNowhere, 115200 baud, 8N2", "echo=yes")),
        ("acs:///dev/ttyNowhere", ("/dev/ttyNowhere, 9600 baud, 8N1", None)),
        ("acs+rfc2217://10.0.0.7:2217?slot=picc", ("rfc2217://10.0.0.7:2217, 9600 baud, 8N1", "slot=picc")),
        ("pn532+socket://10.0.0.7:4001", ("socket://10.0.0.7:4001", None)),
        ("magstripe:///dev/ttyNowhere?flow=rtscts&parity=odd", ("/dev/ttyNowhere, 9600 baud, 8O1, rtscts", None)),
        ("magstripe:///dev/ttyNowhere?baud=fast", ("/dev/ttyNowhere, settings that make no sense", None)),
        ("sim://visa-credit?entry=insert", ("visa-credit", "entry=insert")),
    ],
)
def test_the_line_is_told_with_its_settings(url: str, said: tuple[str, str | None]) -> None:
    about = selftest.about_line(open_reader(url))
    assert (about["line"], about.get("options")) == said


def test_a_line_error_in_the_middle_is_a_step_that_failed() -> None:
    report = steps_of(Scripted(LineError("scripted:///dev/ttyNowhere: the device is gone")))
    assert [step.state for step in report.steps] == ["passed", "failed", "failed", "failed", "passed"]
