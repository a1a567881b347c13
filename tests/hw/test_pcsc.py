"""The PC/SC driver against a service that is not there: cards, codes, threads, and a reader that comes and goes."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from urllib.parse import quote

import pytest

from hw.apdu import Command
from hw.card import EntryMode
from hw.errors import (
    BadAddress,
    CardError,
    CardGone,
    LineError,
    LineGone,
    NotSupported,
    ReaderError,
)
from hw.pcsc import matches
from hw.pcsc_service import CODES, check
from hw.reader import CardInserted, CardRemoved, open_reader, parse_address
from hw.trace import Tracer
from tests.hw.contact import T0, T1
from tests.hw.peers import until
from tests.hw.scards import (
    NOT_TRANSACTED,
    READER,
    SHARING_VIOLATION,
    Scards,
    inserted,
    opened,
    plugged_in,
    scards,
    taken,
)

CONTACTLESS = bytes.fromhex("3B8580018073C821105D")
MEMORY = bytes.fromhex("3B8F8001804F0CA000000306030001000000006A")
RECORD = Command(0x00, 0xB2, 1, 0x0C, le=256)
TRACK = bytes.fromhex("70135711 4761739001010010D25122011143804400000F".replace(" ", ""))[:21]


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("", READER, True),
        ("ACS*", READER, True),
        ("acs*icc*", READER, True),
        ("ACS", READER, False),
        ("*[PICC]*", "ACS ACR1252 [PICC] 00 00", True),
        ("*[PICC]*", "ACS ACR1252 P 00 00", False),
        ("A.*", "AB", False),
    ],
)
def test_a_pattern_is_text_with_stars(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


@pytest.mark.parametrize("url", ["pcsc://ACS*?baud=9600", "pcsc+socket://10.0.0.7:1"])
def test_a_name_is_all_that_there_is_to_say(url: str) -> None:
    with pytest.raises(BadAddress, match="no option but interface"):
        open_reader(url)


@pytest.mark.parametrize(
    ("options", "declared"),
    [
        ("", {"contact", "contactless"}),
        ("?interface=both", {"contact", "contactless"}),
        ("?interface=contact", {"contact"}),
        ("?interface=contactless", {"contactless"}),
    ],
)
def test_what_a_reader_takes_may_be_said(options: str, declared: set[str]) -> None:
    found = asdict(open_reader(f"pcsc://ACS*{options}").capabilities)
    assert {name for name, value in found.items() if value} == declared
    with pytest.raises(BadAddress, match="interface is one of"):
        open_reader("pcsc://ACS*?interface=stripe")


@pytest.mark.parametrize(
    "name",
    [
        "ACS ACR1252 1S CL Reader [ACR1252 Dual Reader PICC] 00 00",
        "Gemalto PC Twin Reader (1A2B) [CCID Interface] 00 00",
        "[half a bracket 00 00",
        READER,
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_name_is_taken_as_the_service_shows_it(name: str, quoted: bool) -> None:
    async def main() -> None:
        with scards("Alcor 00 00", name) as service:
            url = f"pcsc://{quote(name) if quoted else name}"
            assert "%5B" not in parse_address(url).line  # as it is shown in reports
            reader, _ = opened(url)
            async with reader:
                assert reader.reader_name == name
        assert service.contexts == 0

    asyncio.run(main())


def test_the_first_reader_that_fits_is_taken_and_an_unknown_one_is_told_with_those_there_are() -> None:
    async def main() -> None:
        with scards("Alcor 00 00", READER, "ACS other 00 00") as service:
            for url, name in (
                ("pcsc://", "Alcor 00 00"),
                ("pcsc://ACS*", READER),
                ("pcsc://acs%20o*", "ACS other 00 00"),
            ):
                reader, events = opened(url)
                async with reader:
                    assert reader.reader_name == name
                    assert (reader.capabilities.contact, reader.capabilities.contactless) == (True, True)
                assert events == []
            with pytest.raises(
                LineError, match=r"no reader is called 'Omni\*' \(there are: Alcor 00 00, ACS ACR39U"
            ):
                await opened("pcsc://Omni*")[0].open()
            service.slots.clear()
            with pytest.raises(LineError, match=r"there is no reader \(there are: none\)"):
                await opened()[0].open()
            service.running = False
            with pytest.raises(LineError, match="service is not running") as failed:
                await opened()[0].open()
            assert "pcscd" in failed.value.advice
        assert service.contexts == 0

    asyncio.run(main())


def test_without_pyscard_the_driver_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smartcard.scard", None)
    with pytest.raises(NotSupported, match="need pyscard") as missing:
        asyncio.run(open_reader("pcsc://").open())
    assert "python3-pyscard" in missing.value.advice
    assert "libpcsclite-dev" in missing.value.advice


def test_an_insert_is_a_card_of_t1_and_t0_and_is_powered_off_when_it_is_let_go_of() -> None:
    async def main() -> None:
        with scards(READER) as service:
            reader, events = opened()
            slot = service.slots[READER]
            async with reader:
                wait = asyncio.create_task(taken(reader))
                await until(service.waiting)
                service.insert(READER, T1, lambda _: b"\x01\x02\x90\x00")
                card = await wait
                assert (card.entry_mode, card.answer, card.uid) == (EntryMode.CHIP, T1, b"")
                answer = await card.transmit(Command(0x00, 0xA4, 4, 0, b"\xa0", le=256))
                assert (answer.data, answer.sw) == (b"\x01\x02", 0x9000)
                assert slot.held
                await card.release()
                await card.release()
                assert not slot.held
                with pytest.raises(CardGone, match="let go of"):
                    await card.transmit(RECORD)
                service.remove(READER)
                service.insert(READER, T0, lambda tpdu: b"\x61\x02" if tpdu[1] == 0xA4 else b"\x03\x04\x90\x00")
                card = await taken(reader)
                answer = await card.transmit(Command(0x00, 0xA4, 4, 0, b"\xa0", le=256))
                assert (answer.data, answer.sw) == (b"\x03\x04", 0x9000)
            assert [heard.hex() for heard in slot.heard] == ["00a4040001a000", "00a4040001a0", "00c0000002"]
            assert not slot.held
            assert events == [CardInserted]
            assert reader.statistics.frames_out == reader.statistics.frames_in == 3
            assert (reader.statistics.openings, len(reader.statistics.round_trips)) == (1, 3)
        assert service.contexts == 0

    asyncio.run(main())


def test_a_card_that_was_handed_over_counts_again_only_after_it_was_taken_out() -> None:
    async def main() -> None:
        with scards(READER) as service:
            reader, events = opened()
            service.insert(READER, T1)
            async with reader:
                await taken(reader)
                wait = asyncio.create_task(taken(reader))
                await until(service.waiting)
                assert not wait.done()
                service.remove(READER)
                await until(lambda: events[-1] is CardRemoved)
                service.insert(READER, T1)
                await wait
                service.remove(READER)
                service.insert(READER, T1)  # quicker than anyone looked
                await taken(reader)
            assert events == [CardInserted, CardRemoved, CardInserted]

    asyncio.run(main())


def test_a_tap_is_known_by_its_answer_to_reset_and_asked_for_its_uid() -> None:
    async def main() -> None:
        async with plugged_in() as (service, reader, _):
            service.insert(READER, CONTACTLESS, lambda apdu: bytes.fromhex("08010203 9000"))
            card = await taken(reader)
            assert (card.entry_mode, card.uid) == (EntryMode.CONTACTLESS, bytes.fromhex("08010203"))
            service.insert(READER, CONTACTLESS, lambda apdu: b"\x6a\x81")
            assert (await taken(reader)).uid == b""
            service.insert(READER, MEMORY)
            with pytest.raises(CardError, match="no payment card"):
                await taken(reader)
            assert not service.slots[READER].held

    asyncio.run(main())


def test_a_card_that_is_pulled_is_gone_and_one_that_is_mute_is_said_to_be() -> None:
    async def main() -> None:
        async with plugged_in() as (service, reader, events):
            card = await inserted(service, reader)
            service.remove(READER)
            for _ in range(2):
                with pytest.raises(CardGone):
                    await card.transmit(RECORD)
            assert events == [CardInserted, CardRemoved]
            service.insert(READER, T1, mute=True)
            with pytest.raises(CardError, match="does not answer"):
                await taken(reader)
            service.remove(READER)
            assert (await inserted(service, reader)).answer == T1

    asyncio.run(main())


def test_a_command_that_fails_is_the_cards_fault_unless_it_is_pulled_soon_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with plugged_in() as (service, reader, _):
            card = await inserted(service, reader)
            monkeypatch.setattr("hw.pcsc.NOTICES", 20.0)
            service.slots[READER].transmitting = NOT_TRANSACTED
            asking = asyncio.create_task(card.transmit(RECORD))
            await until(service.waiting)
            service.remove(READER)
            with pytest.raises(CardGone, match="taken away"):
                await asking
            card = await inserted(service, reader)
            monkeypatch.setattr("hw.pcsc.NOTICES", 0.01)
            with pytest.raises(CardError, match="did not take the command") as failed:
                await card.transmit(RECORD)
            assert not isinstance(failed.value, CardGone)
            service.slots[READER].transmitting = 0
            service.slots[READER].says = lambda _: b""
            with pytest.raises(CardError, match="0 bytes, which are no response"):
                await card.transmit(RECORD)

    asyncio.run(main())


def test_a_card_that_another_program_holds_is_busy_and_taken_once_it_is_free() -> None:
    async def main() -> None:
        with scards(READER) as service:
            reader, _ = opened()
            service.insert(READER, T1)
            service.slots[READER].connecting = SHARING_VIOLATION
            async with reader:
                with pytest.raises(LineError, match="another program holds the card") as busy:
                    await taken(reader)
                assert not isinstance(busy.value, LineGone)
                service.slots[READER].connecting = 0
                assert (await taken(reader)).answer == T1

    asyncio.run(main())


@pytest.mark.parametrize("code", [0x80100069, 0x80100066, 0x8010000F, -0x7FEFFF9A, 0x80100014])
def test_a_card_that_cannot_be_powered_is_a_typed_error_and_the_next_one_is_taken(code: int) -> None:
    async def main() -> None:
        with scards(READER) as service:
            reader, _ = opened()
            service.insert(READER, T1)
            service.slots[READER].connecting = code
            async with reader:
                with pytest.raises(ReaderError):
                    await taken(reader)
                service.slots[READER].connecting = 0
                service.remove(READER)
                assert (await inserted(service, reader)).answer == T1

    asyncio.run(main())


def test_a_trace_shows_commands_and_answers_and_nothing_secret() -> None:
    async def main() -> None:
        lines: list[str] = []
        with scards(READER) as service:
            reader, _ = opened()
            reader.tracer = Tracer(lines.append, lambda: 1.0)
            service.insert(READER, T1, lambda _: TRACK + b"\x90\x00")
            async with reader:
                await (await taken(reader)).transmit(RECORD)
        out, back = map(json.loads, lines)
        assert (out["way"], out["frame"], out["what"]) == ("out", "00b2010c00", "READ RECORD 00 B2 01 0C")
        assert (back["way"], back["what"]) == ("in", "SW 9000, 21 bytes")
        assert "4761739001010010" not in back["frame"]
        assert back["frame"].endswith("9000")

    asyncio.run(main())


@pytest.mark.parametrize("size", range(1, len(TRACK)))
def test_a_trace_shows_nothing_of_an_answer_in_pieces(size: int) -> None:
    whole = TRACK + TRACK
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    says = [piece + b"\x61\x10" for piece in pieces[:-1]] + [
        b"\x61\x10",  # a piece of nothing
        pieces[-1] + b"\x90\x00",
        b"\x61\x15",
        TRACK + b"\x90\0",
    ]

    async def main() -> None:
        lines: list[str] = []
        with scards(READER) as service:
            reader, _ = opened()
            reader.tracer = Tracer(lines.append, lambda: 1.0)
            service.insert(READER, T1, lambda _: says.pop(0))
            async with reader:
                card = await taken(reader)
                assert (await card.transmit(RECORD)).data == whole
                assert (await card.transmit(RECORD)).data == TRACK
        answers = [line["frame"] for line in map(json.loads, lines) if line["way"] == "in"]
        assert all(set(answer[:-4]) <= {"0"} for answer in answers[: len(pieces) + 1])
        assert answers[-1].startswith("7013571147617")  # which came whole
        assert "4761739001010010" not in "".join(answers)

    asyncio.run(main())


@pytest.mark.parametrize("code", [*CODES, 0x80100001, 1])
def test_every_return_code_is_one_of_our_errors(code: int) -> None:
    with pytest.raises(ReaderError, match=r"^here: ") as failed:
        check("here", code)
    assert failed.value.advice or type(failed.value) is LineError
    with pytest.raises(type(failed.value)):
        check("here", code - (1 << 32))
    check("here", 0)


def test_a_thread_that_fails_fails_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Scards, _context: int, _groups: list[str]) -> tuple[int, list[str]]:
        raise ValueError("no such group")

    monkeypatch.setattr(Scards, "SCardListReaders", broken)
    with scards(READER) as service, pytest.raises(ValueError, match="no such group"):
        asyncio.run(open_reader("pcsc://").open())
    assert service.contexts == 0
