"""Settings of stripe readers: published and derived commands, the reader's answers, and any bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import magstripe_setup as setup
from hw.errors import NoAnswer, NotSupported, ProtocolError
from hw.line import Link
from hw.magstripe import Framer, describe, masked, parse
from hw.reader import CardInserted, CardRemoved, ReaderEvent, open_reader
from hw.trace import Tracer, read_trace
from sim.reader.magstripe import FORMATS, MagstripeEmulator, on_pty, swipe_bytes
from sim.reader.memory import MemoryLine
from sim.reader.stripes import CARDS
from sim.virtual_time import run
from tests.hw.test_magstripe_frames import SWIPES
from tests.hw.test_reader import waiting

# The layout is the MiniMag RS-232 manual's, sections "Setup commands structure" and "General selections".
GOLDEN = {
    "review": ("02 52 1F 03 4C", (setup.ALL, None)),
    "defaults": ("02 53 18 03 4A", (setup.DEFAULTS, None)),
    "enable": ("02 53 1A 01 31 03 78", (setup.ENABLE, b"1")),
    "sentinels and all of track 2": ("02 53 19 01 31 03 7B", (setup.SENTINELS, b"1")),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_published_commands_are_built_and_parsed(name: str) -> None:
    text, (setting, data) = GOLDEN[name]
    frame = bytes.fromhex(text)
    assert (setup.build_review() if setting == setup.ALL else setup.build(setting, data)) == frame
    assert setup.parse(frame) == (setting, data)


@pytest.mark.parametrize(
    "bad", ["", "02 03 01", "02 53 1A 01 31 03 79", "02 53 1A 02 31 03 7B", "02 52 18 03 4B", "06"]
)
def test_what_is_no_command(bad: str) -> None:
    with pytest.raises(ProtocolError):
        setup.parse(bytes.fromhex(bad))


@given(settings=st.dictionaries(st.integers(0, 255), st.binary(max_size=20), max_size=12))
def test_settings_are_told_as_they_are(settings: dict[int, bytes]) -> None:
    assert setup.parse_settings(setup.build_settings(settings)) == settings


@given(data=st.binary(max_size=40))
def test_any_bytes_are_settings_or_a_protocol_error(data: bytes) -> None:
    for read in (setup.parse, setup.parse_settings):
        with suppress(ProtocolError):
            read(data)


@given(
    noise=st.binary(max_size=40).map(lambda data: data.replace(b"\x02", b"")),
    names=st.lists(st.sampled_from(list(GOLDEN))),
)
def test_commands_are_cut_out_of_whatever_comes(noise: bytes, names: list[str]) -> None:
    sent = [bytes.fromhex(GOLDEN[name][0]) for name in names]
    assert setup.cut(noise + noise.join(sent) + noise) == (sent, b"")
    assert setup.cut(b"\x02\x53" + b"".join(sent))[0] == sent
    whole = noise + b"".join(sent)
    found, held = [], b""
    for at in range(0, len(whole), 3):
        cut, held = setup.cut(held + whole[at : at + 3])
        found += cut
        assert len(held) <= setup.LONGEST
    assert found == sent


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("02 52 1F 03 4C", "asks for all settings"),
        ("02 53 18 03 4A", "sets default settings"),
        ("02 53 1A 01 31 03 78", "sets reading: 31"),
        ("06", "taken"),
        ("15", "refused"),
        ("02 53 1A 01 31 03 79", ""),
        ("", ""),
    ],
)
def test_what_is_said_about_settings(frame: str, said: str) -> None:
    data = bytes.fromhex(frame)
    assert setup.describe(data) == said
    assert describe(data) == (said or f"{len(data)} bytes")
    if said:
        assert masked(data) == data


def test_the_pause_after_a_command() -> None:
    assert setup.pause(None) == pytest.approx(0.08)
    assert setup.pause(b"12") == pytest.approx(0.1)
    assert setup.BAUD_RATES[9600] == b"5"


def with_emulator(body: Callable[[Link, MagstripeEmulator], Awaitable[None]]) -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = MagstripeEmulator(line, "idtech")
        running = asyncio.create_task(emulator.run())
        await body(line.link, emulator)
        await line.close()
        await running

    run(main())


def test_the_emulator_takes_the_published_commands_and_answers() -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = MagstripeEmulator(line, "idtech")
        running = asyncio.create_task(emulator.run())
        link = line.link
        for text, (setting, _) in GOLDEN.values():
            await link.write(b"\xff\x00" + bytes.fromhex(text))
            said = b""
            while not said:
                said = await link.read()
            assert said[0] == setup.ACK
            assert (len(said) > 1) == (setting == setup.ALL)
        assert emulator.commands == [bytes.fromhex(text) for text, _ in GOLDEN.values()]
        await line.close()
        await running

    run(main())


def test_settings_are_changed_reviewed_and_reset() -> None:
    async def body(link: Link, emulator: MagstripeEmulator) -> None:
        await setup.change(link, setup.BEEP, b"0")
        assert (await setup.review(link))[setup.BEEP] == b"0"
        await setup.change(link, setup.DEFAULTS)
        assert (await setup.review(link))[setup.BEEP] == b"2"

    with_emulator(body)


def test_what_a_reader_refuses_or_does_not_answer() -> None:
    async def body(link: Link, emulator: MagstripeEmulator) -> None:
        emulator.refuses.add(setup.DIRECTION)
        with pytest.raises(NotSupported, match="refuses direction of a swipe"):
            await setup.change(link, setup.DIRECTION, b"1")

    with_emulator(body)

    async def nobody() -> None:
        link = MemoryLine().link
        with pytest.raises(NoAnswer, match="no answer to beep volume"):
            await setup.change(link, setup.BEEP, b"0")

    run(nobody())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"\x06\x02\x11\x01", NoAnswer),
        (b"\x06\x02\x11\x05\x32\x03\x27", ProtocolError),
        (b"\x06" + b"\x00" * 2000, ProtocolError),
    ],
)
def test_a_review_that_is_none(said: bytes, error: type[Exception]) -> None:
    async def main() -> None:
        line = MemoryLine()
        asked = asyncio.create_task(setup.review(line.link))
        await asyncio.sleep(0.1)
        await line.write(said)
        with pytest.raises(error):
            await asked

    run(main())


def test_a_driver_sets_its_reader_and_cards_come_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        line = MemoryLine()

        async def open_link(_url: str, *, name: str) -> Link:
            return line.link

        monkeypatch.setattr("hw.reader.open_link", open_link)
        emulator = MagstripeEmulator(line, "idtech")
        emulator.settings[setup.ENABLE] = b"0"
        running = asyncio.create_task(emulator.run())
        async with open_reader("magstripe:///dev/ttyS1?setup=idtech") as reader:
            assert emulator.commands == [
                bytes.fromhex(GOLDEN[name][0]) for name in ("enable", "sentinels and all of track 2")
            ]
            wait = await waiting(reader)
            await emulator.swipe("visa")
            assert (await wait).masked_pan == "476173******0119"
        await line.close()
        await running

    run(main())


def test_a_reader_that_is_turned_off_reads_nothing() -> None:
    async def body(link: Link, emulator: MagstripeEmulator) -> None:
        await setup.change(link, setup.ENABLE, b"0")
        await emulator.swipe("visa")
        assert link.take() == b""

    with_emulator(body)


def test_the_published_insertion_notice() -> None:
    framer = Framer()
    assert framer.feed(bytes.fromhex("02 1B 31 0D 03")) == []
    assert list(framer.notices) == [True]
    assert framer.feed(bytes.fromhex("02 1B 30 0D 03")) == []
    assert list(framer.notices) == [True, False]
    assert framer.feed(b"10\r0") == []
    assert len(framer.notices) == 2
    for swipe in SWIPES.values():
        Framer().feed(swipe)
        assert len(framer.notices) == 2


def test_cards_that_go_in_and_out_are_events() -> None:
    async def main() -> None:
        async with on_pty("magtek") as emulated, open_reader(emulated.url) as reader:
            events: list[ReaderEvent] = []
            reader.on_event = events.append
            wait = await waiting(reader)
            await emulated.reader.insert()
            await emulated.reader.remove()
            await emulated.reader.insert()
            await emulated.swipe("visa")
            assert (await wait).masked_pan == "476173******0119"
            assert [type(event) for event in events] == [CardInserted, CardRemoved, CardInserted]

    asyncio.run(main())


@pytest.mark.parametrize("name", SWIPES)
def test_what_is_traced_is_a_swipe_of_nobody(name: str) -> None:
    swipe = SWIPES[name]
    hidden = masked(swipe)
    assert len(hidden) == len(swipe)
    assert b"4761739001010119" not in hidden
    assert b"DOE" not in hidden
    assert describe(hidden) == describe(swipe)
    card = parse(hidden)
    assert (card.expiry, card.masked_pan) == ("2812", "476173******0119")


@pytest.mark.parametrize("name", SWIPES)
def test_a_swipe_that_was_bent_or_torn_shows_no_more(name: str) -> None:
    swipe = SWIPES[name]
    bent = [
        swipe[:at] + bytes((swipe[at] ^ bit,)) + swipe[at + 1 :] for at in range(len(swipe)) for bit in (1, 0x80)
    ]
    torn = [swipe[:end] for end in range(len(swipe))]
    for message in (*bent, *torn):
        hidden = masked(message)
        assert len(hidden) == len(message)
        assert b"DOE" not in hidden
        for at in range(10):  # of a number whose first six digits and last four may stay
            assert b"4761739001010119"[at : at + 7] not in hidden


@pytest.mark.parametrize("make", FORMATS)
def test_swipes_are_counted_and_traced(make: str) -> None:
    lines: list[str] = []

    async def main() -> None:
        async with on_pty(make) as emulated, open_reader(emulated.url) as reader:
            reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
            wait = await waiting(reader)
            await emulated.line.write(b"\xff\xfe")
            await emulated.swipe("visa")
            await wait
            assert reader.statistics.frames_in == 1
            assert reader.statistics.bytes_in == 2 + len(swipe_bytes(CARDS["visa"], make))
            assert reader.statistics.dropped == 2

    asyncio.run(main())
    (traced,) = read_trace(lines)
    assert parse(traced.data).masked_pan == "476173******0119"
    assert json.loads(lines[0])["what"] == f"swipe ({make}), 2 tracks"


@given(message=st.binary(max_size=100))
def test_anything_can_be_told_of(message: bytes) -> None:
    assert len(masked(message)) == len(message)
    assert isinstance(describe(message), str)
