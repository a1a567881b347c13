"""Traces played back: the same driver comes to the same end, and any other way is told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hw import gemcore_frames
from hw.apdu import Command
from hw.card import ChipCard
from hw.ccid import Kind, Message
from hw.errors import CardGone, LineError, LineGone, ProtocolError, ReaderError
from hw.reader import Reader, open_reader
from hw.t1 import i_block
from hw.trace import Tracer
from sim.dialects import DIALECTS
from sim.reader.ccid import Fault as CcidFault
from sim.reader.line import PtyLine
from sim.reader.magstripe import MagstripeEmulator
from sim.reader.memory import MemoryLine
from sim.reader.pn532 import Fault as Pn532Fault
from sim.reader.presenting import PRESENTERS, Way
from sim.replay import Deviation, Recording, Replay, Replayed, Turn, load, on_pty, on_socket
from sim.virtual_time import run as run_virtually
from terminal.cli.reader_cards import facts_of

PLACES: dict[str, tuple[str, Way, str]] = {
    "pn532": ("pn532", "tap", ""),
    "gemcore": ("gemcore", "insert", ""),
    "acs-icc": ("acs", "insert", ""),
    "acs-picc": ("acs", "tap", "?slot=picc"),
    "magstripe": ("magstripe", "swipe", ""),
    "vivopay-tap": ("vivopay", "tap", ""),
    "vivopay-insert": ("vivopay", "insert", ""),
    "vivopay-apdus": ("vivopay", "tap", "?mode=passthrough"),
}
Work = Callable[[Reader], Awaitable[Any]]


async def read(reader: Reader) -> dict[str, Any]:
    card = await reader.wait_for_card(30)
    facts = await facts_of(card)
    if isinstance(card, ChipCard):
        await card.release()
    return facts


async def with_reader(url: str, work: Work, options: str = "") -> tuple[Any, list[str], Reader]:
    """What came of it, the trace of it, and the reader."""
    lines: list[str] = []
    reader = open_reader(url.partition("?")[0] + options)
    reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
    async with reader:
        return await work(reader), lines, reader


@asynccontextmanager
async def emulated(driver: str, way: Way, card: str = "visa-credit") -> AsyncIterator[Any]:
    """A reader on a pty, with a card."""
    line = PtyLine()
    presenter = PRESENTERS[driver](line, (way,))
    running = asyncio.create_task(presenter.run())
    swiping = way == "swipe"
    presenting = asyncio.create_task(
        presenter.swipe_at_once(card) if swiping else presenter.present(card, way), name="presenting"
    )
    try:
        yield presenter
    finally:
        presenting.cancel()
        await asyncio.wait([presenting])
        await line.close()
        running.cancel()
        await asyncio.wait([running])


async def recorded(place: str, work: Work = read, card: str = "visa-credit") -> tuple[Any, list[str], Recording]:
    driver, way, options = PLACES[place]
    async with emulated(driver, way, card) as presenter:
        facts, lines, _ = await with_reader(presenter.url, work, options)
    return facts, lines, load(lines)


def frames(lines: list[str]) -> list[str]:
    """A trace without its times."""
    return [line.partition(",")[2] for line in lines]


@pytest.mark.parametrize("card", ["visa-credit", "mastercard-debit", "maestro"])
@pytest.mark.parametrize("place", PLACES)
def test_a_trace_replays_to_the_same_end_with_the_same_frames(place: str, card: str) -> None:
    async def main() -> None:
        facts, lines, recording = await recorded(place, card=card)
        assert recording.driver == PLACES[place][0]
        async with on_pty(recording) as replayed:
            again, traced, _ = await with_reader(replayed.url, read, PLACES[place][2])
            assert again == facts
            assert frames(traced) == frames(lines)
            assert replayed.play.over

    asyncio.run(main())


def test_a_trace_holds_no_number_and_replays_with_nobodys() -> None:
    async def main() -> None:
        facts, lines, recording = await recorded("pn532")
        assert facts["pan"] == "476173******0119"
        assert "4761739001010119" not in "".join(lines)
        async with on_socket(recording) as replayed:
            again, _, _ = await with_reader(replayed.url, read)
            assert again == facts

    asyncio.run(main())


@pytest.mark.parametrize(
    ("place", "fault"),
    [("pn532", Pn532Fault.BAD_CHECKSUM), ("gemcore", CcidFault.WRONG_CHECK), ("acs-icc", CcidFault.WRONG_CHECK)],
)
def test_damage_is_played_as_damage(place: str, fault: Any) -> None:
    driver, way, options = PLACES[place]

    async def main() -> None:
        async with emulated(driver, way) as presenter:

            async def work(reader: Reader) -> dict[str, Any]:
                card = await reader.wait_for_card(30)
                presenter.reader.misbehave(fault)
                return await facts_of(card)

            facts, lines, first = await with_reader(presenter.url, work, options)
        assert first.statistics.retries == 1
        async with on_pty(load(lines)) as replayed:

            async def unharmed(reader: Reader) -> dict[str, Any]:
                return await facts_of(await reader.wait_for_card(30))

            again, traced, second = await with_reader(replayed.url, unharmed, options)
        assert again == facts
        assert second.statistics.retries == 1
        assert frames(traced) == frames(lines)

    asyncio.run(main())


def test_a_torn_card_is_torn_again() -> None:
    async def tearing(reader: Reader) -> str:
        card = await reader.wait_for_card(30)
        assert isinstance(card, ChipCard)
        with pytest.raises(CardGone) as caught:
            await card.transmit(Command(0x00, 0xA4, 0x04, 0x00, b"2PAY.SYS.DDF01", 256))
        return str(caught.value).rpartition(": ")[2]

    async def main() -> None:
        async with emulated("pn532", "tap") as presenter:

            async def work(reader: Reader) -> str:
                presenter.reader.tear()
                return await tearing(reader)

            said, lines, _ = await with_reader(presenter.url, work)
        async with on_pty(load(lines)) as replayed:
            assert (await with_reader(replayed.url, tearing))[0] == said == "the card was taken away"

    asyncio.run(main())


async def another(reader: Reader) -> dict[str, Any]:
    """Does something first that was not recorded."""
    card = await reader.wait_for_card(30)
    assert isinstance(card, ChipCard)
    await card.transmit(Command(0x00, 0xB2, 0x01, 0x0C, le=256))
    return await facts_of(card)


@pytest.mark.parametrize("place", ["pn532", "gemcore", "acs-icc", "vivopay-apdus"])
def test_the_first_deviation_ends_the_play_and_is_named(place: str) -> None:
    async def main() -> None:
        _, _, recording = await recorded(place)

        async def play() -> None:
            async with on_pty(recording) as replayed:
                with pytest.raises(LineGone):
                    await with_reader(replayed.url, another, PLACES[place][2])

        with pytest.raises(Deviation, match=r"command \d+ of the trace is .+, and what came is ") as caught:
            await play()
        assert "tolerant" in caught.value.advice

    asyncio.run(main())


def test_a_deviation_does_not_say_what_the_driver_has_sent() -> None:
    """A PIN in two blocks of T=1: what the second holds can only be known from the first."""
    envelope, verify = gemcore_frames.ENVELOPE, bytes.fromhex("00200080052412345678")
    first, second = (
        envelope.build(Message(Kind.XFR_BLOCK, i_block(number, inf, more=number == 0).encode()))
        for number, inf in enumerate((verify[:6], verify[6:]))
    )

    class Sends:
        def __init__(self) -> None:
            self.frames = [first, second]

        async def read(self) -> bytes:
            return self.frames.pop(0)

        async def write(self, data: bytes) -> None:
            raise AssertionError("there is nothing to answer")

        async def close(self) -> None:
            raise AssertionError("the line is not the play's")

    turns = (Turn(DIALECTS["gemcore"].language().masked(first)), Turn(envelope.build(Message(Kind.POWER_OFF))))
    with pytest.raises(Deviation) as caught:
        asyncio.run(Replay(Sends(), Recording("gemcore", (), turns)).run())
    assert "power off" in str(caught.value)
    assert "I(1)" in str(caught.value)
    assert not re.search("12|34|56|78", str(caught.value))


def test_what_comes_after_the_end_deviates_too() -> None:
    async def main() -> None:
        _, _, recording = await recorded("gemcore")

        async def play() -> None:
            async with on_pty(recording) as replayed:
                await with_reader(replayed.url, read)
                with pytest.raises(LineError):
                    await with_reader(replayed.url, read)

        with pytest.raises(Deviation, match="the trace is over after"):
            await play()

    asyncio.run(main())


def test_a_swipe_waits_for_whoever_opens_the_line_and_then_turns_to_it() -> None:
    """Opening a line drops what came, and so does the wait that follows."""

    async def main() -> None:
        facts, _, recording = await recorded("magstripe")
        async with on_pty(recording) as replayed, open_reader(replayed.url) as reader:
            for _ in range(50):  # the play is told that the line was opened
                await asyncio.sleep(0)
            assert await read(reader) == facts

    asyncio.run(main())


def test_a_stripe_reader_is_told_its_settings_again_before_it_swipes(monkeypatch: pytest.MonkeyPatch) -> None:
    options, lines = "?setup=idtech", []

    async def recording() -> dict[str, Any]:
        line = MemoryLine()
        emulator = MagstripeEmulator(line, "idtech")
        running = asyncio.create_task(emulator.run())

        async def open_link(_url: str, *, name: str) -> Any:
            return line.link

        with monkeypatch.context() as patched:
            patched.setattr("hw.reader.open_link", open_link)
            reader = open_reader(f"magstripe:///dev/ttyS1{options}")
            reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
            async with reader:
                wait = asyncio.create_task(read(reader))
                await asyncio.sleep(1)
                await emulator.swipe("visa")
                facts = await wait
            counts = reader.statistics
            assert (counts.frames_out, counts.frames_in, counts.bytes_out) == (2, 3, 14)
        await line.close()
        await running
        return facts

    facts = run_virtually(recording())
    told = [json.loads(line) for line in lines]
    assert [(one["way"], one["what"]) for one in told] == [
        ("out", "sets reading: 31"),
        ("in", "taken"),
        ("out", "sets sentinels, and how much of track 2: 31"),
        ("in", "taken"),
        ("in", "swipe (idtech), 2 tracks"),
    ]
    assert told[0]["frame"] == "02531a0131" + "0378"

    async def main() -> None:
        play = load(lines)
        assert (play.driver, len(play.turns), len(play.unasked)) == ("magstripe", 2, 1)
        async with on_pty(play) as replayed:
            again, traced, _ = await with_reader(replayed.url, read, options)
            assert again == facts
            assert frames(traced) == frames(lines)
            assert replayed.play.over

    asyncio.run(main())


@pytest.mark.parametrize("place", [place for place in PLACES if place != "magstripe"])
def test_a_tolerant_play_goes_on_and_begins_anew(place: str) -> None:
    async def main() -> None:
        facts, _, recording = await recorded(place)
        async with on_pty(recording, tolerant=True) as replayed:
            for _ in range(2):
                assert (await with_reader(replayed.url, read, PLACES[place][2]))[0] == facts

    asyncio.run(main())


def test_a_tolerant_play_takes_a_command_for_one_of_its_kind_and_leaves_the_rest_unanswered() -> None:
    options = Command(0x80, 0xA8, 0x00, 0x00, bytes.fromhex("8321") + bytes(33), 256)

    async def started(reader: Reader) -> bool:
        card = await reader.wait_for_card(30)
        assert isinstance(card, ChipCard)
        return (await card.transmit(options)).ok

    async def main() -> None:
        _, _, recording = await recorded("pn532")
        async with on_pty(recording, tolerant=True) as replayed:
            assert (await with_reader(replayed.url, started))[0]
            play = replayed.play
            played = play.played
            with pytest.raises(ReaderError):
                await with_reader(replayed.url.replace("pn532", "vivopay"), read)
            assert play.played == played

    asyncio.run(main())


def test_a_recorded_pace_is_kept_where_it_is_asked_for() -> None:
    lines = [
        '{"t": 0.0, "way": "out", "frame": "0000ff02fed4022a00", "what": ""}',
        '{"t": 7.5, "way": "in", "frame": "0000ff00ff00", "what": ""}',
        '{"t": 10.0, "way": "in", "frame": "0000ff06fad50332010607e800", "what": ""}',
    ]

    async def took(pace: float) -> float:
        line = MemoryLine()
        link = line.link
        running = asyncio.create_task(Replay(line, load(lines), pace=pace).run())
        clock = asyncio.get_running_loop().time
        began = clock()
        await link.write(bytes.fromhex("0000ff02fed4022a00"))
        came = b""
        while len(came) < 19:
            came += await link.read()
        assert came.hex() == "0000ff00ff00" + "0000ff06fad50332010607e800"
        await line.close()
        await running
        return clock() - began

    assert run_virtually(took(1.0)) == pytest.approx(10.0)
    assert run_virtually(took(0.5)) == pytest.approx(5.0)
    assert run_virtually(took(0.0)) == 0.0


def test_whose_frames_they_are_is_told_by_themselves() -> None:
    async def main() -> None:
        for place, (driver, _, _) in PLACES.items():
            _, lines, recording = await recorded(place)
            assert recording.driver == driver
            assert load(lines, driver) == recording

    asyncio.run(main())


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["hello"], "line 1 of the trace is no frame"),
        (['{"t": 0, "way": "in", "frame": "zz"}'], "line 1"),
        (['{"t": 0, "way": "in", "frame": "1234"}'], "of no driver that is known"),
        ([], "of no driver that is known"),
    ],
)
def test_what_is_no_trace_is_refused(lines: list[str], why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        load(lines)


def test_every_dialect_tells_damage_from_a_frame() -> None:
    for name, dialect in DIALECTS.items():
        if dialect.damaged:
            assert dialect.framer().feed(dialect.damaged) != [dialect.damaged], name


def test_the_url_of_a_play_names_its_driver() -> None:
    async def main() -> None:
        _, _, recording = await recorded("acs-icc")
        async with on_pty(recording) as replayed:
            assert isinstance(replayed, Replayed)
            assert replayed.url.startswith("acs:///dev/")

    asyncio.run(main())
