"""The ViVOpay driver, over a line in memory and in virtual time, against written frames and against any bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.apdu import Command
from hw.card import ChipCard, EntryMode, ResultCard, SealedCard, StripeCard
from hw.errors import (
    BadAddress,
    Cancelled,
    CardError,
    CardGone,
    FramingError,
    LineGone,
    NoAnswer,
    NotSupported,
    ProtocolError,
    ReaderError,
    TimedOut,
)
from hw.reader import CardInserted, CardRemoved, ReaderEvent, ReaderGone, Sale, open_reader
from hw.vivopay import ROUND, VivopayReader
from hw.vivopay_commands import CONTACTLESS, LONGEST_TEXT, sale_objects
from hw.vivopay_frames import (
    BurstPayload,
    Framer,
    Message,
    build_answer,
    build_command,
    build_event,
    build_payload,
    parse,
)
from hw.vivopay_tlv import BURST, Cover, Item
from hw.vivopay_tlv import parse as parse_items
from sim.reader.memory import MemoryLine
from sim.virtual_time import run
from tests.hw.test_vivopay_results import CLEAR, SEALED
from tests.hw.vivopay_golden import ANSWERS, BURST_CARD, COMMANDS, EVENTS, frame

OK = {command: build_answer(command, 0) for command in range(256)}
FIRMWARE = build_answer(0x29, 0, b"NEO v1.00.028\0")


class Written:
    """Answers commands with written bytes: a queue for each command byte, and "OK" where there is none.

    What is queued may be bytes, several answers with seconds between them, or None for silence.
    """

    def __init__(self, line: MemoryLine) -> None:
        self.line = line
        self.heard: list[bytes] = []
        self.says: dict[int, list[bytes | tuple[bytes | float, ...] | None]] = {0x29: [FIRMWARE]}
        self._later: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        framer = Framer()
        with suppress(LineGone):
            while True:
                for sent in framer.feed(await self.line.read()):
                    self.heard.append(sent)
                    message = parse(sent)
                    assert isinstance(message, Message)
                    queue = self.says.get(message.command)
                    said = queue.pop(0) if queue else OK[message.command]
                    if isinstance(said, bytes):
                        await self.line.write(said)
                    elif said is not None:
                        self._later.add(asyncio.create_task(self._slowly(said)))

    async def _slowly(self, said: tuple[bytes | float, ...]) -> None:
        with suppress(LineGone):
            for one in said:
                await (self.line.write(one) if isinstance(one, bytes) else asyncio.sleep(one))


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch, options: str = "", line: MemoryLine | None = None):
    """A reader on a line in memory, and who answers it."""
    line = line or MemoryLine()
    written = Written(line)

    async def open_link(_url: str, *, name: str) -> object:
        link = line.link
        link.name = name
        return link

    monkeypatch.setattr("hw.reader.open_link", open_link)
    running = asyncio.create_task(written.run())
    reader = open_reader(f"vivopay:///dev/ttyACM0{options}")
    assert isinstance(reader, VivopayReader)
    try:
        async with reader:
            yield reader, written
    finally:
        await line.close()
        await running


Test = Callable[[VivopayReader, Written], Awaitable[None]]


@pytest.fixture
def driving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a test's body with a reader that is open, in virtual time."""

    def drive(body: Callable[[VivopayReader, Written], Coroutine[Any, Any, None]], options: str = "") -> None:
        async def main() -> None:
            async with opened(monkeypatch, options) as (reader, written):
                await body(reader, written)

        run(main())

    return drive


def test_it_is_woken_and_set(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        assert reader.firmware == "NEO v1.00.028"
        ping, firmware, through, burst_off, on_demand = written.heard
        assert ping == COMMANDS["ping P"][0]
        assert firmware == COMMANDS["firmware D"][0]
        assert parse(through) == Message(0x2C, 0x01, b"\0")
        assert parse(burst_off) == Message(0x04, 0x00, bytes.fromhex("DFEE7E0100"))
        assert on_demand == COMMANDS["poll on demand D"][0]

    driving(body)


@pytest.mark.parametrize("status", [0x02, 0x05, 0x06, 0x0B])
def test_a_reader_that_has_neither_pass_through_nor_burst_mode_is_opened_all_the_same(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async def main() -> None:
        line = MemoryLine()
        written = Written(line)
        written.says |= {0x2C: [build_answer(0x2C, status)], 0x04: [build_answer(0x04, status)]}

        async def open_link(_url: str, *, name: str) -> object:
            return line.link

        monkeypatch.setattr("hw.reader.open_link", open_link)
        running = asyncio.create_task(written.run())
        async with open_reader("vivopay:///dev/ttyACM0"):
            assert written.heard[-1] == COMMANDS["poll on demand D"][0]
        await line.close()
        await running

    run(main())


def test_a_card_is_waited_for_with_the_published_frames(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x02] = [ANSWERS["activate, timeout D"][0], build_answer(0x02, 0x23, b"\1" + CLEAR)]
        card = await reader.wait_for_card(10, Sale(1000, 840))
        assert isinstance(card, ResultCard)
        assert (card.pan, card.entry_mode) == ("4761739001010119", EntryMode.CONTACTLESS)
        activations = [parse(sent) for sent in written.heard if sent[10] == 0x02]
        golden = COMMANDS["activate for 10 dollars D"][1]
        assert activations == [Message(0x02, 0x40, bytes((ROUND,)) + golden.data[1:])] * 2

    driving(body)


def test_the_published_activation_is_what_ten_seconds_and_ten_dollars_make(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x02] = [ANSWERS["activate, timeout D"][0]]
        result = await reader.activate(10, sale_objects(Sale(1000, 840)))
        assert result.status == 0x08
        assert written.heard[-1] == COMMANDS["activate for 10 dollars D"][0]

    driving(body)


def test_every_published_command_that_is_the_driver_s_is_sent_and_its_answer_taken(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        commands = reader.commands
        del written.heard[:]
        written.says[0x03] = [build_answer(0x03, 0, bytes.fromhex("DFEE7E0101 9F1A020840")), OK[0x03]]
        written.says[0x09] = [build_answer(0x09, 0, b"HW,Kiosk V\0")]
        await commands.ping()
        assert [item.tag for item in await commands.configuration()] == [BURST, 0x9F1A]
        assert await commands.module() == "HW,Kiosk V"
        await commands.cancel()
        assert (await commands.result()).status == 0
        await commands.set_terminal_data(parse_items(COMMANDS["set terminal data P"][1].data[2:]))
        names = (
            "ping P",
            "get configuration P",
            "module information P",
            "cancel D",
            "get result D",
            "set terminal data P",
        )
        assert written.heard == [COMMANDS[name][0] for name in names]
        written.says |= {0x60: [ANSWERS["contact configuration 3C P"][0]], 0x61: [ANSWERS["query screen 1 P"][0]]}
        written.says[0x83] = [ANSWERS["light sensor P"][0]]
        for name, data in (
            ("contact configuration 3C P", b""),
            ("query screen 1 P", b"\1"),
            ("light sensor P", b"\xe1\1"),
        ):
            asked = COMMANDS[name][1]
            answer = await commands.channel.ask(asked.command, asked.code, asked.data, what=name)
            assert written.heard[-1] == COMMANDS[name][0]
            assert answer.data == data

    driving(body)


def test_what_else_it_can_be_told(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        commands = reader.commands
        del written.heard[:]
        await commands.stop()
        await commands.interface(0x0B, beeps=2, light=1, on=True)
        await commands.beep(3)
        await commands.set_terminal_data((Item(0x9F33, b"\x60\x28\xc8"), Item(0x9F35, b"\x21")))
        await commands.update_balance(True, b"ABCD1234", datetime(2026, 3, 4, 5, 6, 7))  # noqa: DTZ001
        await commands.update_balance(False)
        await commands.contact_off()
        assert [parse(sent) for sent in written.heard] == [
            Message(0x05, 0x02),
            Message(0x01, 0x02, bytes.fromhex("0B020101")),
            Message(0x0B, 0x01, b"\3"),
            Message(0x60, 0x06, bytes.fromhex("0200 9F33036028C8 9F350121")),
            Message(0x03, 0x03, b"\0\xe3\0\x08ABCD1234" + bytes.fromhex("9A03260304 9F2103050607")),
            Message(0x03, 0x03, b"\1"),
            Message(0x2C, 0x18),
        ]

    driving(body)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"NEO v1.00\0\xff\xff", "NEO v1.00"),
        (b"\0\x1b[31mNEO\r\n", "[31mNEO"),
        (b"", ""),
        (b"x" * 4000, "x" * LONGEST_TEXT),
    ],
)
def test_what_a_reader_calls_itself_can_be_shown(driving, said: bytes, shown: str) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x29] = [build_answer(0x29, 0, said)]
        assert await reader.commands.firmware() == shown

    driving(body)


def test_a_sale_in_data_objects() -> None:
    assert sale_objects(None) == b""
    yen = sale_objects(Sale(500, 392, 0))
    assert yen.hex() == "9f0206000000000500" + "9c0100" + "5f2a020392" + "5f360100"
    for minor in (-1, 10**12):
        with pytest.raises(NotSupported, match="twelve digits"):
            sale_objects(Sale(minor, 978))


def test_the_time_of_day_goes_along_where_the_reader_has_none(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        reader.now = lambda: datetime(2026, 12, 31, 23, 59, 58)  # noqa: DTZ001
        written.says[0x02] = [build_answer(0x02, 0, b"\1" + CLEAR)]
        await reader.wait_for_card(10)
        assert parse(written.heard[-1]) == Message(
            0x02, 0x40, bytes((ROUND,)) + bytes.fromhex("9A032612319F2103235958")
        )

    driving(body, "?clock=host")


def test_stages_lights_and_requests_before_the_answer_are_no_answer(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        events: list[ReaderEvent] = []
        reader.on_event = events.append
        stages = (build_answer(0x02, 0x0E, b"\1"), build_answer(0x61, 0x01, bytes(9)), build_answer(0x02, 0x63))
        lights = [golden for golden, _ in EVENTS.values()]
        written.says[0x02] = [(*stages, *lights, 5.0, OK[0x18], build_answer(0x02, 0, b"\0" + CLEAR))]
        card = await reader.wait_for_card(20)
        assert card.entry_mode is EntryMode.CHIP
        assert [type(event) for event in events] == [CardInserted]

    driving(body)


def test_a_reader_that_says_everything_but_the_answer(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x18] = [(*[EVENTS["light P"][0]] * 70,)]
        with pytest.raises(ProtocolError, match="does not come to an answer to ping"):
            await reader.commands.ping()

    driving(body)


@pytest.mark.parametrize(("data", "scheme"), [(SEALED, "dukpt-tdes"), (b"\xc3" + SEALED[1:], "dukpt-aes")])
def test_ciphertext_is_handed_over_unopened(driving, data: bytes, scheme: str) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        assert reader.capabilities.encrypts
        written.says[0x02] = [build_answer(0x02, 0x23, data)]
        card = await reader.wait_for_card(10)
        assert isinstance(card, SealedCard)
        assert (card.scheme, card.ksn.hex(), card.data) == (scheme, "ffff9876543210e00001", bytes(range(24)))

    driving(body, "?encrypts=yes")


def test_a_reader_that_is_to_encrypt_and_does_not_is_refused(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x02] = [build_answer(0x02, 0x23, b"\1" + CLEAR)]
        with pytest.raises(CardError, match="sent a card in the clear") as caught:
            await reader.wait_for_card(10)
        assert "keys and settings" in caught.value.advice

    driving(body, "?encrypts=yes")


@pytest.mark.parametrize(
    "besides",
    [
        Item(0x5A, bytes.fromhex("4761739001010119")),
        Item(0x5A, bytes.fromhex("4761739001010119"), Cover.MASKED),  # it says so, and has not done it
        Item(0xFF8105, Item(0x9F6B, bytes.fromhex("4761739001010119D2812201")).encode()),
        Item(0xDFEF18, b";4761739001010119=28122011000?"),
        Item(0x56, b"B4761739001010119^DOE/JOHN^2812201"),
    ],
)
def test_a_number_in_the_clear_beside_the_ciphertext_is_no_better(driving, besides: Item) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x02] = [build_answer(0x02, 0x23, SEALED + besides.encode())]
        with pytest.raises(CardError, match="sent a card in the clear"):
            await reader.wait_for_card(10)
        written.says[0x02] = [build_answer(0x02, 0x23, SEALED)]
        assert isinstance(await reader.wait_for_card(10), SealedCard)

    driving(body, "?encrypts=yes")


@pytest.mark.parametrize("mode", ["burst", "passthrough"])
def test_modes_in_which_nothing_is_encrypted(mode: str) -> None:
    with pytest.raises(BadAddress, match="card data come in the clear"):
        open_reader(f"vivopay:///dev/ttyACM0?mode={mode}&encrypts=yes")


def test_a_wait_that_nobody_answers_calls_off_the_reader_too(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        for end, error in (("time", TimedOut), ("cancel", Cancelled)):
            written.says[0x02] = [None]
            wait = asyncio.create_task(reader.wait_for_card(5))
            await asyncio.sleep(1)
            if end == "cancel":
                reader.cancel()
            with pytest.raises(error):
                await wait
            assert written.heard[-1] == COMMANDS["cancel D"][0]
        written.says[0x02] = [build_answer(0x02, 0, b"\0" + CLEAR)]
        assert isinstance(await reader.wait_for_card(5), ResultCard)

    driving(body)


def test_a_reader_that_does_not_even_call_off_holds_up_nobody_for_long(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says |= {0x02: [None], 0x05: [None]}
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimedOut):
            await reader.wait_for_card(5)
        assert loop.time() - began == pytest.approx(5.5)

    driving(body)


def test_the_line_goes_away_in_the_middle(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        events: list[ReaderEvent] = []
        reader.on_event = events.append
        written.says[0x02] = [(build_answer(0x02, 0, b"\0" + CLEAR)[:20],)]
        wait = asyncio.create_task(reader.wait_for_card(10))
        await asyncio.sleep(1)
        await written.line.close()
        with pytest.raises(LineGone, match="the device is gone"):
            await wait
        assert [type(event) for event in events] == [ReaderGone]

    driving(body)


@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_was_lost_or_bent_is_asked_for_again(driving, times: int) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        bent = bytearray(ANSWERS["ping P"][0])
        bent[-1] ^= 1
        written.says[0x18] = [*[None, bytes(bent)][:times], ANSWERS["ping P"][0]]
        await reader.commands.ping()
        assert reader.statistics.retries == times
        assert reader.statistics.errors == {"NoAnswer": times}

    driving(body)


def test_a_deaf_reader_is_named(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x18] = [None] * 3
        with pytest.raises(NoAnswer, match=r"vivopay:///dev/ttyACM0: no answer to ping within 1 s"):
            await reader.wait_for_card(10)

    driving(body)


@pytest.mark.parametrize(
    ("status", "error", "why"),
    [
        (0x02, NotSupported, r"refuses beep: unknown command \(02h\)"),
        (0x0B, NotSupported, "command not allowed"),
        (0x01, FramingError, "wrong header"),
        (0x05, ProtocolError, "wrong parameter"),
        (0x0A, ProtocolError, "failed"),
        (0x77, ProtocolError, r"status \(77h\)"),
    ],
)
def test_what_is_refused_says_by_which_status(driving, status: int, error: type[ReaderError], why: str) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x0B] = [build_answer(0x0B, status)]
        with pytest.raises(error, match=why):
            await reader.commands.beep()

    driving(body)


def test_a_reader_that_wants_its_crc_the_other_way_round_gets_it(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x0B] = [build_answer(0x0B, 0x04), OK[0x0B], OK[0x0B]]
        del written.heard[:]
        await reader.commands.beep()
        await reader.commands.beep()
        first, second, third = written.heard
        assert first[:-2] == second[:-2]
        assert first[-2:] == second[:-3:-1]
        assert third == second
        written.says[0x0B] = [build_answer(0x0B, 0x04)] * 3
        with pytest.raises(FramingError, match="wrong CRC"):
            await reader.commands.beep()

    driving(body)


def test_a_command_that_the_line_has_bent_is_sent_again_as_it_was_and_so_is_the_next(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x18] = [build_answer(0x18, 0x04), build_answer(0x18, 0x04), OK[0x18]]
        del written.heard[:]
        await reader.commands.ping()
        await reader.commands.ping()
        first, turned, again, later = written.heard
        assert first == again == later == COMMANDS["ping P"][0]
        assert turned[-2:] == first[:-3:-1]
        written.says[0x18] = [build_answer(0x18, 0x04), *[None] * 3, OK[0x18]]
        with pytest.raises(NoAnswer):
            await reader.commands.ping()
        await reader.commands.ping()
        assert written.heard[-1] == COMMANDS["ping P"][0]

    driving(body)


WANTS = [
    pytest.param(build_command(0x61, 0x01, b"\x01" + bytes(8)), "a choice", id="a menu"),
    pytest.param(build_command(0x61, 0x01, b"\x02" + bytes(8)), "a choice", id="a key"),
    pytest.param(build_command(0x61, 0x01, b"\x08" + bytes(8)), "a choice", id="a language"),
    pytest.param(build_answer(0x61, 0x02, b"\x03" + bytes(8)), "a PIN", id="a PIN"),
    pytest.param(build_answer(0x61, 0x03, bytes(8)), "a swipe", id="a swipe"),
]


@pytest.mark.parametrize(("wants", "what"), WANTS)
@pytest.mark.parametrize(("mode", "command"), [("contact", 0x60), ("activate", 0x02)])
def test_what_there_is_nobody_to_ask_for_ends_the_transaction(driving, wants, what, mode, command) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        written.says[command] = [(build_answer(command, 0x63), 2.0, wants)]
        with pytest.raises(CardError, match=f"the card wants {what}") as caught:
            await reader.wait_for_card(60)
        assert "another" in caught.value.advice
        assert written.heard[-1] == COMMANDS["cancel D"][0]
        assert loop.time() - began < 3
        written.says[command] = [build_answer(command, 0, bytes(command == 0x60) + b"\0" + CLEAR)]
        await written.line.write(wants)  # one that comes too late is nobody's
        assert isinstance(await reader.wait_for_card(5), ResultCard)

    driving(body, f"?mode={mode}")


@pytest.mark.parametrize("mode", [0x03, 0x10, 0x20, 0x21, 0x22])
def test_what_is_only_to_be_shown_is_not_waited_for(driving, mode: int) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        shows = build_command(0x61, 0x01, bytes((mode,)) + bytes(8))
        written.says[0x60] = [(build_answer(0x60, 0x63), shows, shows, build_answer(0x60, 0, b"\0\0" + CLEAR))]
        assert isinstance(await reader.wait_for_card(5), ResultCard)

    driving(body, "?mode=contact")


def test_a_card_that_is_still_in_the_slot_pays_for_nobody_else(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        events: list[type[ReaderEvent]] = []
        reader.on_event = lambda event: events.append(type(event))
        contact = build_answer(0x02, 0x23, b"\0" + CLEAR)
        seated, off = build_answer(0x2C, 0, bytes.fromhex("3B600000")), build_answer(0x2C, 0x0A)
        done = OK[0x2C]
        written.says[0x02] = [contact]
        await reader.wait_for_card(5)
        written.says[0x2C] = [done, seated, done, done] * 3 + [done, off, off, done]
        written.says[0x02] = [contact]
        with pytest.raises(CardError, match="in the slot already") as caught:
            await reader.wait_for_card(5)
        assert "Take it out" in caught.value.advice
        assert written.says[0x02] == [contact]  # nobody was asked to read it
        assert events == []
        assert isinstance(await reader.wait_for_card(5), ResultCard)
        assert written.says[0x2C] == []
        assert events == [CardRemoved]

    driving(body)


@pytest.mark.parametrize("status", [0x02, 0x05, 0x0B])
def test_a_reader_into_whose_slot_nobody_may_look_is_waited_on_as_before(driving, status: int) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        for _ in range(2):
            written.says |= {
                0x02: [build_answer(0x02, 0, b"\0" + CLEAR)],
                0x2C: [build_answer(0x2C, status)],
            }
            assert isinstance(await reader.wait_for_card(5), ResultCard)

    driving(body)


def test_a_card_that_is_refused_and_left_there_is_not_refused_all_the_time(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        loop = asyncio.get_running_loop()
        began, refused = loop.time(), 0
        collision = build_answer(0x02, 0x0A, bytes.fromhex("01 FFEE1F 04 21000000"))
        while loop.time() - began < 10:
            written.says[0x02] = [collision]
            with pytest.raises(CardError, match="more than one card"):
                await reader.wait_for_card(5)
            refused += 1
        assert refused <= 21

    driving(body)


def test_contact_in_two_steps_and_online(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        more, wait = ANSWERS["contact, more follows D"][0], 3.0
        written.says[0x60] = [
            (more, wait, build_answer(0x60, 0x08)),
            (more, wait, build_answer(0x60, 0, b"\0\0" + CLEAR)),
            (more, wait, build_answer(0x60, 0, b"\0\4" + bytes.fromhex("9F260811223344556677889F270180"))),
            (more, wait, build_answer(0x60, 0, b"\0\0")),
        ]
        card = await reader.wait_for_card(30, Sale(1000, 840))
        assert isinstance(card, ResultCard)
        assert card.entry_mode is EntryMode.CHIP
        started = parse(written.heard[-1])
        assert isinstance(started, Message)
        assert (started.command, started.code) == (0x60, 0x10)
        assert started.data == bytes.fromhex("01001E001E") + sale_objects(Sale(1000, 840))
        assert (await reader.commands.authenticate(b"")).goes_online
        assert not (await reader.commands.apply_host_response(b"\1")).goes_online

    driving(body, "?mode=contact")


def test_burst_mode(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        assert [parse(sent) for sent in written.heard[3:]] == [
            Message(0x01, 0x01, b"\0"),
            Message(0x04, 0x00, bytes.fromhex("DFEE7E0101")),
        ]
        payload = parse(BURST_CARD)
        assert isinstance(payload, BurstPayload)
        swiped = build_payload(BurstPayload(0, 0x0C, payload.tracks))
        for sent, mode in ((BURST_CARD, EntryMode.CONTACTLESS), (swiped, EntryMode.SWIPE)):
            wait = asyncio.create_task(reader.wait_for_card(10))
            await asyncio.sleep(1)
            await written.line.write(EVENTS["message P"][0] + sent)
            card = await wait
            assert isinstance(card, StripeCard | ResultCard)
            assert (card.pan, card.entry_mode) == ("6279257749132343", mode)

    driving(body, "?mode=burst")


def test_apdus_are_passed_through(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        events: list[ReaderEvent] = []
        reader.on_event = events.append
        written.says[0x2C] = [
            ANSWERS["pass-through P"][0],
            build_answer(0x2C, 0x08),
            build_answer(0x2C, 0x00, b"\0"),
            build_answer(0x2C, 0x00, bytes.fromhex("01 04A1B2C3")),
            build_answer(0x2C, 0x00, bytes.fromhex("6F00 9000")),
            build_answer(0x2C, 0x0A),
        ]
        card = await reader.wait_for_card(10)
        assert isinstance(card, ChipCard)
        assert (card.entry_mode, card.uid.hex()) == (EntryMode.CONTACTLESS, "04a1b2c3")
        answer = await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))
        assert (answer.data, answer.sw) == (b"\x6f\0", 0x9000)
        sent = parse(written.heard[-1])
        assert sent == Message(
            0x2C, 0x13, bytes((CONTACTLESS,)) + bytes.fromhex("00A404000E") + b"2PAY.SYS.DDF01\0"
        )
        with pytest.raises(CardGone, match="taken away"):
            await card.transmit(Command(0, 0xB2, 1, 0x0C, le=256))
        with pytest.raises(CardGone, match="let go of"):
            await card.transmit(Command(0, 0xB2, 1, 0x0C, le=256))
        await card.release()
        assert [type(event) for event in events] == [CardInserted, CardRemoved]

    driving(body, "?mode=passthrough")


def test_a_card_that_was_left_in_the_field_does_not_count_again(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        found = build_answer(0x2C, 0x00, bytes.fromhex("01 04A1B2C3"))
        other = build_answer(0x2C, 0x00, bytes.fromhex("01 04D4E5F6"))
        drawn = build_answer(0x2C, 0x00, bytes.fromhex("01 08D4E5F6"))
        nothing = build_answer(0x2C, 0x08)
        on = off = ANSWERS["pass-through P"][0]
        written.says[0x2C] = [on, found]
        assert (await reader.wait_for_card(10)).uid.hex() == "04a1b2c3"  # type: ignore[union-attr]
        written.says[0x2C] = [off, on, found, found, drawn, nothing, found]
        await reader.wait_for_card(10)
        assert not written.says[0x2C]
        written.says[0x2C] = [off, on, other]
        assert (await reader.wait_for_card(10)).uid.hex() == "04d4e5f6"  # type: ignore[union-attr]

    driving(body, "?mode=passthrough")


@pytest.mark.parametrize(
    ("status", "error", "why"),
    [
        (0x06, NotSupported, "keeps the card's number to itself"),
        (0x1C, CardError, "the APDU makes no sense"),
        (0x04, ProtocolError, "understands no command"),
        (0x77, CardError, r"status \(77h\)"),
    ],
)
def test_an_apdu_that_the_reader_does_not_carry(driving, status, error, why) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x2C] = [OK[0x2C], build_answer(0x2C, 0, bytes.fromhex("01 04A1B2C3"))]
        card = await reader.wait_for_card(10)
        assert isinstance(card, ChipCard)
        written.says[0x2C] = [build_answer(0x2C, status)] * 3
        with pytest.raises(error, match=why) as caught:
            await card.transmit(Command(0, 0xB2, 1, 0x0C, le=256))
        assert not isinstance(caught.value, CardGone)

    driving(body, "?mode=passthrough")


@pytest.mark.parametrize("called_off", [False, True])
def test_an_answer_that_comes_too_late_is_not_the_next_command_s(driving, called_off: bool) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        written.says[0x2C] = [OK[0x2C], build_answer(0x2C, 0, bytes.fromhex("01 04A1B2C3"))]
        card = await reader.wait_for_card(10)
        assert isinstance(card, ChipCard)
        written.says[0x2C] = [(25.0, build_answer(0x2C, 0, bytes.fromhex("0102 9000")))]
        asking = asyncio.create_task(card.transmit(Command(0, 0xB2, 1, 0x0C, le=256)))
        if called_off:
            await asyncio.sleep(1)
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if called_off else NoAnswer):
            await asking
        with pytest.raises(CardGone):
            await card.transmit(Command(0, 0xB2, 2, 0x0C, le=256))
        await card.release()
        assert parse(written.heard[-1]) == Message(0x2C, 0x01, b"\0")

    driving(body, "?mode=passthrough")


def test_trouble_in_the_field_is_told_once_and_the_card_behind_it_is_read(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        on, trouble = OK[0x2C], build_answer(0x2C, 0x0A)
        written.says[0x2C] = [on, trouble]
        with pytest.raises(CardError) as caught:
            await reader.wait_for_card(10)
        assert caught.value.advice == "Present one card only."
        found = build_answer(0x2C, 0, bytes.fromhex("01 04A1B2C3"))
        written.says[0x2C] = [on, trouble, trouble, found]
        assert (await reader.wait_for_card(10)).uid.hex() == "04a1b2c3"  # type: ignore[union-attr]

    driving(body, "?mode=passthrough")


@pytest.mark.parametrize(("answer", "why"), [(b"\3\1\2\3\4", "no payment card"), (None, "status")])
def test_what_is_tapped_and_is_no_payment_card(driving, answer: bytes | None, why: str) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        said = build_answer(0x2C, 0x99) if answer is None else build_answer(0x2C, 0, answer)
        written.says[0x2C] = [OK[0x2C], said]
        with pytest.raises(CardError, match=why):
            await reader.wait_for_card(10)

    driving(body, "?mode=passthrough")


def test_contact_cards_are_passed_through(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        atr = bytes.fromhex("3B600000")
        written.says[0x2C] = [OK[0x2C], build_answer(0x2C, 0x0A), build_answer(0x2C, 0, atr)]
        card = await reader.wait_for_card(10)
        assert isinstance(card, ChipCard)
        assert (card.entry_mode, card.answer) == (EntryMode.CHIP, atr)
        del written.heard[:]
        await card.release()
        await card.release()
        assert [parse(sent) for sent in written.heard] == [Message(0x2C, 0x18), Message(0x2C, 0x01, b"\0")]

    driving(body, "?mode=passthrough&interface=contact")


def test_the_capabilities_of_each_mode() -> None:
    def of(options: str):
        return open_reader(f"vivopay:///dev/ttyACM0{options}").capabilities

    assert (of("").contact, of("").contactless, of("").stripe, of("").own_kernel) == (True, True, True, True)
    assert not of("").encrypts
    through = of("?mode=passthrough")
    assert (through.contactless, through.contact, through.own_kernel) == (True, False, False)
    assert of("?mode=passthrough&interface=contact").contact
    assert not of("?mode=contact").contactless
    assert not of("?mode=burst").contact
    reader = open_reader("vivopay:///dev/ttyACM0")
    assert isinstance(reader, VivopayReader)
    with pytest.raises(ProtocolError, match="not open"):
        _ = reader.commands


anything = st.binary(max_size=60)
nonsense = st.one_of(
    anything,
    st.builds(
        build_answer, st.sampled_from([0x02, 0x05, 0x18, 0x29, 0x2C, 0x60, 0x61]), st.integers(0, 255), anything
    ),
    st.builds(build_event, anything.map(lambda data: data[:60])),
    st.builds(lambda cut: build_answer(0x02, 0x23, SEALED[:cut]), st.integers(0, len(SEALED))),
    st.sampled_from([BURST_CARD, BURST_CARD[:-2], frame("02 00 10 00"), frame("02 00 00 40"), b"\1\0\2%", b"V"]),
)


@settings(max_examples=80, deadline=None)
@given(
    said=st.dictionaries(
        st.sampled_from([0x01, 0x02, 0x04, 0x05, 0x18, 0x29, 0x2C, 0x60]),
        st.lists(nonsense | st.none() | st.tuples(nonsense, st.just(2.0), nonsense), max_size=4),
        max_size=6,
    ),
    unasked=st.lists(nonsense, max_size=5),
    mode=st.sampled_from(["activate", "contact", "burst", "passthrough", "passthrough&interface=contact"]),
)
def test_whatever_a_reader_says_only_typed_errors_come_out_and_the_next_card_is_read(said, unasked, mode) -> None:
    async def main() -> None:
        line = MemoryLine()
        written = Written(line)
        written.says = {command: list(answers) for command, answers in said.items()}

        async def open_link(_url: str, *, name: str) -> object:
            return line.link

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr("hw.reader.open_link", open_link)
            running = asyncio.create_task(written.run())
            reader = open_reader(f"vivopay:///dev/ttyACM0?mode={mode}")
            for _ in range(3):
                wait = asyncio.create_task(reader.wait_for_card(60))
                for one in unasked:
                    await asyncio.sleep(0.5)
                    await line.write(one)
                with suppress(ReaderError):
                    card = await wait
                    if isinstance(card, ChipCard):
                        with suppress(ReaderError):
                            await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))
            written.says = {0x29: [FIRMWARE]}
            await asyncio.sleep(5)
            if mode == "activate":
                written.says[0x02] = [build_answer(0x02, 0, b"\0" + CLEAR)]
                assert (await reader.wait_for_card(60)).masked_pan == "476173******0119"
            await reader.close()
            await line.close()
            await running

    run(main())


def test_a_stripe_card_of_a_swipe(driving) -> None:
    async def body(reader: VivopayReader, written: Written) -> None:
        tracks = Item(0xDFEF18, b";4761739001010119=28122011000?").encode()
        written.says[0x02] = [build_answer(0x02, 0, b"\x08" + tracks)]
        card = await reader.wait_for_card(10)
        assert isinstance(card, StripeCard)
        assert card.track2 == "4761739001010119=28122011000"

    driving(body)
