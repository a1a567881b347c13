"""The emulated ViVOpay reader: against published frames alone, and then with the driver at the other end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from hw import tlv
from hw.apdu import Command
from hw.card import ChipCard, EntryMode, ResultCard, SealedCard, StripeCard
from hw.errors import CardError, CardGone, LineGone, NoAnswer, TimedOut
from hw.line import Link
from hw.reader import CardInserted, ReaderEvent, ReaderGone, Sale, open_reader
from hw.trace import Tracer, read_trace
from hw.vivopay import VivopayReader
from hw.vivopay_commands import AUTO_POLL
from hw.vivopay_frames import Framer, Message, build_command, parse
from hw.vivopay_result import activation, card_of
from hw.vivopay_tlv import BURST
from sim.card.files import card_file
from sim.card.virtual import VirtualCard, inserted, tapped
from sim.reader.memory import MemoryLine
from sim.reader.stripes import CARDS
from sim.reader.vivopay import Seal, VivopayEmulator, on_pty, on_socket
from sim.reader.vivopay_faults import Fault
from sim.virtual_time import run
from tests.hw.vivopay_golden import ANSWERS, COMMANDS

PPSE = bytes.fromhex("6F1E840E325041592E5359532E4444463031A50CBF0C0961074F05A0000000039000")
RECORD = bytes.fromhex("7015 5713 4761739001010119D28122011000001230000F 9000")


class Chip:
    """A chip card that knows the four commands that it is asked."""

    uid, ats, atr = bytes.fromhex("04A1B2C3"), bytes.fromhex("0578807002"), bytes.fromhex("3B600000")

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def transmit(self, command: bytes) -> bytes:
        self.asked.append(command)
        answers = {
            b"\0\xa4\4\0\x0e2PAY": PPSE,
            bytes.fromhex("00A4040005A000000003"): bytes.fromhex(
                "6F148407A0000000031010A509500456495341 9F3800 9000"
            ),
            bytes.fromhex("80A80000"): bytes.fromhex("800A 0000 08010100 10010100 9000"),
            bytes.fromhex("00B2010C"): RECORD,
        }
        return next((said for start, said in answers.items() if command.startswith(start)), b"\x6a\x82")


@asynccontextmanager
async def emulated(seal=None):
    """An emulator on a line in memory, and the other end of the line."""
    line = MemoryLine()
    emulator = VivopayEmulator(line, seal=seal)
    running = asyncio.create_task(emulator.run())
    try:
        yield emulator, line.link
    finally:
        await line.close()
        await running


async def answers(link: Link, sent: bytes, seconds: float = 1.0) -> list[bytes]:
    """All frames that come within so many seconds of virtual time."""
    link.discard()
    await link.write(sent)
    await asyncio.sleep(seconds)
    return Framer().feed(link.take())


GOLDEN = {
    name: (COMMANDS[name][0], ANSWERS[name][0])
    for name in COMMANDS.keys() & ANSWERS.keys()
    if name not in ("activate, timeout D",)
}
GOLDEN["poll on demand P"] = (COMMANDS["poll on demand D"][0], ANSWERS["poll on demand P"][0])
GOLDEN["pass-through P"] = (build_command(0x2C, 0x01, b"\1"), ANSWERS["pass-through P"][0])


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_published_commands_get_their_published_answers(name: str) -> None:
    async def main() -> None:
        async with emulated() as (_, link):
            command, answer = GOLDEN[name]
            assert await answers(link, command) == [answer]

    run(main())


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - GOLDEN.keys() - {"poll on demand D"}))
def test_the_other_published_commands_are_answered_too(name: str) -> None:
    async def main() -> None:
        async with emulated() as (emulator, link):
            emulator.insert("visa")
            found = await answers(link, COMMANDS[name][0])
            said = parse(found[-1])
            assert isinstance(said, Message)
            assert (said.command, said.code) == (COMMANDS[name][1].command, 0x23 if "activate" in name else 0x00)

    run(main())


def test_ten_seconds_and_no_card() -> None:
    async def main() -> None:
        async with emulated() as (_, link):
            command = COMMANDS["activate for 10 dollars D"][0]
            assert await answers(link, command, 9.9) == []
            await asyncio.sleep(0.2)
            assert link.take() == ANSWERS["activate, timeout D"][0]

    run(main())


def test_contact_answers_in_two_steps() -> None:
    async def main() -> None:
        async with emulated() as (emulator, link):
            start = build_command(0x60, 0x10, bytes.fromhex("00000A000A"))
            assert await answers(link, start) == [ANSWERS["contact, more follows D"][0]]
            emulator.insert("visa")
            await asyncio.sleep(0.1)
            (final,) = Framer().feed(link.take())
            said = parse(final)
            assert isinstance(said, Message)
            assert said.data[:2] == b"\0\0"

    run(main())


def test_a_wrong_crc_and_an_unknown_command_are_told_so() -> None:
    async def main() -> None:
        async with emulated() as (_, link):
            for sent, status in (
                (build_command(0x18, 0x01, order="big"), 0x04),
                (build_command(0x99, 0x01), 0x02),
                (build_command(0x02, 0x01, b"\x0a"), 0x02),
                (build_command(0x01, 0x01, b"\x07"), 0x05),
                (build_command(0x04, 0x00, b"\xdf"), 0x05),
                (build_command(0x2C, 0x13, b"\0\0\xa4\4\0"), 0x0B),
                (build_command(0x2C, 0x01, b"\1"), 0x00),
                (COMMANDS["activate for 10 dollars D"][0], 0x0B),
                (build_command(0x60, 0x10, bytes.fromhex("00000A000A")), 0x0B),
            ):
                (answer,) = await answers(link, sent)
                assert answer[11] == status

    run(main())


def test_any_command_in_the_middle_calls_off() -> None:
    async def main() -> None:
        async with emulated() as (emulator, link):
            await answers(link, COMMANDS["poll on demand D"][0])
            assert await answers(link, COMMANDS["activate for 10 dollars D"][0]) == []
            assert await answers(link, COMMANDS["ping P"][0]) == [ANSWERS["ping P"][0]]
            emulator.tap("visa")
            await asyncio.sleep(20)
            assert link.take() == b""

    run(main())


def test_burst_mode_is_off_in_a_reader_that_encrypts() -> None:
    async def main() -> None:
        for seal, on in ((None, b"\1"), ("aes", b"\0")):
            async with emulated(seal) as (emulator, link):
                await answers(link, build_command(0x04, 0x00, bytes.fromhex("DFEE7E0101")))
                assert emulator.settings[BURST] == on

    run(main())


def test_the_key_serial_number_counts_up_and_the_seed_makes_the_ciphertext() -> None:
    async def main() -> list[tuple[bytes, bytes]]:
        made = []
        async with emulated("tdes") as (emulator, link):
            await answers(link, COMMANDS["poll on demand D"][0])
            for _ in range(2):
                emulator.tap("visa")
                *_, last = await answers(link, COMMANDS["activate for 10 dollars D"][0])
                emulator.remove()
                said = parse(last)
                assert isinstance(said, Message)
                card = card_of(activation(said))
                assert isinstance(card, SealedCard)
                made.append((card.ksn, card.data))
                assert b"\x47\x61\x73\x90\x01\x01\x01\x19" not in last
        return made

    first, second = run(main())
    assert int.from_bytes(second[0], "big") - int.from_bytes(first[0], "big") == 1
    assert len(first[0]) == 10
    assert first[1] != second[1]
    assert run(main()) == [first, second]


# From here on the driver is at the other end.

SALE = Sale(1250, 978)
WAYS = {
    "tap": (EntryMode.CONTACTLESS, ResultCard),
    "insert": (EntryMode.CHIP, ResultCard),
    "swipe": (EntryMode.SWIPE, StripeCard),
}
PLACES = {"pty": on_pty, "socket": on_socket}


@pytest.mark.parametrize("seal", [None, "tdes", "aes"])
@pytest.mark.parametrize("place", PLACES)
def test_every_way_of_presenting_every_card(place: str, seal) -> None:
    async def main() -> None:
        async with PLACES[place](seal) as made:
            options = "?encrypts=yes" if seal else ""
            async with open_reader(made.url + options) as reader:
                for way, (mode, kind) in WAYS.items():
                    for name, stripe in CARDS.items():
                        wait = asyncio.create_task(reader.wait_for_card(20, SALE))
                        await made.reader.waiting()
                        getattr(made.reader, way)(name)
                        card = await wait
                        made.reader.remove()
                        assert card.entry_mode is mode
                        assert card.masked_pan[-4:] == stripe.pan[-4:]
                        if seal is None:
                            assert isinstance(card, kind)
                            assert card.pan == stripe.pan
                        else:
                            assert isinstance(card, SealedCard)
                            assert (card.scheme, card.expiry) == (f"dukpt-{seal}", "2812")

    asyncio.run(main())


def test_an_old_contactless_card() -> None:
    async def main() -> None:
        async with on_pty() as made, open_reader(made.url) as reader:
            made.reader.tap("visa", as_stripe=True)
            card = await reader.wait_for_card(20)
            assert isinstance(card, ResultCard)
            assert card.entry_mode is EntryMode.CONTACTLESS

    asyncio.run(main())


@pytest.mark.parametrize("name", ["visa-credit", "mastercard-debit", "maestro"])
@pytest.mark.parametrize(("way", "made"), [("tap", tapped), ("insert", inserted)])
def test_its_kernel_reads_a_chip(way: str, made: Callable[[str], VirtualCard], name: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        getattr(emulator, way)(made(name))
        card = await reader.wait_for_card(20)
        assert isinstance(card, ResultCard)
        assert card.masked_pan == card_file(name).masked_pan
        assert card.entry_mode is (EntryMode.CHIP if way == "insert" else EntryMode.CONTACTLESS)
        assert tlv.find(tlv.parse(card.tags), 0x84)

    in_memory(body)


@pytest.mark.parametrize("name", ["blocked", "not-for-payment", "garbled"])
def test_its_kernel_refuses_a_chip(name: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.insert(inserted(name))
        with pytest.raises(CardError):
            await reader.wait_for_card(20)

    in_memory(body)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.GARBAGE, None),
        (Fault.SPLIT, None),
        (Fault.JOINED, None),
        (Fault.SLOW_CARD, None),
        (Fault.UNKNOWN_STATUS, None),
        (Fault.BAD_CHECKSUM, TimedOut),
        (Fault.SILENCE, TimedOut),
        (Fault.UNPLUG, LineGone),
    ],
)
def test_what_goes_wrong_with_a_card(fault: Fault, error: type[Exception] | None) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.misbehave(fault, on=0x02)
        emulator.tap("visa")
        if error is None:
            assert (await reader.wait_for_card(10)).masked_pan == "476173******0119"
            return
        with pytest.raises(error):
            await reader.wait_for_card(10)
        if error is not LineGone:
            assert (await reader.wait_for_card(10)).masked_pan == "476173******0119"

    in_memory(body)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.UNPLUG, Fault.UNKNOWN_STATUS)])
def test_what_goes_wrong_with_any_other_answer_is_survived(fault: Fault) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.slowness = 0.5
        emulator.misbehave(fault, on=0x18, times=2)
        emulator.tap("visa")
        assert (await reader.wait_for_card(10)).masked_pan == "476173******0119"

    in_memory(body)


def test_a_command_that_the_line_bends_is_sent_again_and_the_reader_is_as_good_as_before() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        send, bent = reader.commands.channel.wire.link.write, []

        async def write(data: bytes) -> None:
            if data[10] == 0x18 and not bent:
                bent.append(data)
                data = data[:-1] + bytes((data[-1] ^ 0x10,))  # both orders of its CRC are wrong then
            await send(data)

        reader.commands.channel.wire.link.write = write  # type: ignore[method-assign]
        heard = len(emulator.heard)
        await reader.commands.ping()
        assert bent
        await reader.commands.ping()
        assert [message.command for message in list(emulator.heard)[heard:]] == [0x18, 0x18]

    in_memory(body)


def test_silence_for_good_is_named() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.misbehave(Fault.SILENCE, times=3)
        with pytest.raises(NoAnswer, match="no answer to ping"):
            await reader.wait_for_card(10)

    in_memory(body)


@pytest.mark.parametrize("way", ["tap", "insert"])
def test_a_card_torn_out_is_presented_again(way: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.tear()
        getattr(emulator, way)("visa")
        with pytest.raises(CardError, match="taken away too soon"):
            await reader.wait_for_card(10)
        getattr(emulator, way)("visa")
        assert (await reader.wait_for_card(10)).masked_pan == "476173******0119"

    in_memory(body)


@pytest.mark.parametrize("options", ["", "?mode=passthrough"])
def test_two_cards_in_the_field_and_then_one(options: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.tap(tapped("visa-credit"))
        emulator.crowd()
        with pytest.raises(CardError) as caught:
            await reader.wait_for_card(10)
        assert caught.value.advice == "Present one card only."
        emulator.remove()
        emulator.tap(tapped("visa-credit"))
        assert (await reader.wait_for_card(10)).entry_mode is EntryMode.CONTACTLESS

    in_memory(body, options)


@pytest.mark.parametrize("name", ["visa-credit", "blocked"])
def test_a_card_that_is_left_in_the_slot_is_neither_read_nor_refused_again_and_again(name: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.insert(inserted(name))
        outcomes: list[str] = []
        for _ in range(4):
            try:
                outcomes.append((await reader.wait_for_card(10)).masked_pan)
            except (CardError, TimedOut) as error:
                outcomes.append(type(error).__name__)
        read = card_file(name).masked_pan if name == "visa-credit" else "CardError"
        assert outcomes == [read, "CardError", "TimedOut", "TimedOut"]
        wait = asyncio.create_task(reader.wait_for_card(10))
        await asyncio.sleep(1)
        emulator.remove()
        await asyncio.sleep(1)
        emulator.tap(tapped("amex"))
        assert (await wait).masked_pan == "378282*****0005"

    in_memory(body)


@pytest.mark.parametrize("seal", [None, "aes"])
def test_a_card_that_is_left_on_the_reader_pays_for_nobody_else(seal: Seal | None) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.tap(tapped("visa-credit"))
        outcomes: list[str] = []
        for _ in range(3):
            try:
                outcomes.append((await reader.wait_for_card(10)).masked_pan[-4:])
            except (CardError, TimedOut) as error:
                outcomes.append(str(error).partition(": ")[2])
        assert outcomes == ["0119", "the card of before is still there", "no card within 10 seconds"]
        for name, last in (("visa-credit", "0119"), ("amex", "0005"), ("amex", "0005")):
            wait = asyncio.create_task(reader.wait_for_card(10))
            await asyncio.sleep(1)
            emulator.remove()
            await asyncio.sleep(1)
            emulator.tap(tapped(name))
            assert (await wait).masked_pan[-4:] == last
            emulator.remove()

    in_memory(body, seal=seal)


@pytest.mark.parametrize(("way", "mode"), [("tap", EntryMode.CONTACTLESS), ("swipe", EntryMode.SWIPE)])
@pytest.mark.parametrize("seal", [None, "aes"])
def test_a_reader_that_polls_by_itself_is_asked_for_the_result(
    way: str, mode: EntryMode, seal: Seal | None
) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        await reader.commands.poll(AUTO_POLL)
        with pytest.raises(CardError, match="told nothing of the card"):
            card_of(await reader.commands.result())
        getattr(emulator, way)("visa")
        await asyncio.sleep(1)
        result = await reader.commands.result()
        assert card_of(result).entry_mode is mode
        assert isinstance(card_of(result), SealedCard) == (seal is not None)
        assert not (await reader.commands.result()).items  # it tells once

    in_memory(body, seal=seal)


@pytest.mark.parametrize("mode", ["activate", "contact", "burst"])
def test_a_reader_that_was_left_in_pass_through_mode_is_taken_out_of_it(mode: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        await reader.commands.pass_through(True)
        await reader.close()
        await reader.open()
        assert not emulator.passing_through
        wait = asyncio.create_task(reader.wait_for_card(10))
        await asyncio.sleep(1)
        emulator.swipe("visa")
        assert (await wait).masked_pan == "476173******0119"

    in_memory(body, f"?mode={mode}")


def in_memory(
    body: Callable[[VivopayReader, VivopayEmulator], Awaitable[None]], options: str = "", seal: Seal | None = None
) -> None:
    """Run with the driver on one end and the emulator on the other, in virtual time."""

    async def main() -> None:
        line = MemoryLine()
        emulator = VivopayEmulator(line, seal=seal)

        async def open_link(_url: str, *, name: str) -> Link:
            return line.link

        running = asyncio.create_task(emulator.run())
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr("hw.reader.open_link", open_link)
            async with open_reader(f"vivopay:///dev/ttyACM0{options}") as reader:
                assert isinstance(reader, VivopayReader)
                await body(reader, emulator)
        await line.close()
        await running

    run(main())


def test_a_card_that_does_not_read() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        class Empty:
            def transmit(self, command: bytes) -> bytes:
                return b"\x6a\x82"

        emulator.insert(Empty())
        with pytest.raises(CardError, match="does not take this kind of card"):
            await reader.wait_for_card(10)

    in_memory(body)


def test_the_line_goes_away_between_two_apdus() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        events: list[ReaderEvent] = []
        reader.on_event = events.append
        emulator.tap(Chip())
        card = await reader.wait_for_card(5)
        assert isinstance(card, ChipCard)
        emulator.misbehave(Fault.UNPLUG, on=0x2C)
        with pytest.raises(LineGone):
            await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))
        with pytest.raises(CardGone):
            await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))
        await card.release()
        assert [type(event) for event in events] == [CardInserted, ReaderGone]

    in_memory(body, "?mode=passthrough")


@pytest.mark.parametrize(("fault", "error"), [(Fault.UNKNOWN_STATUS, CardError), (Fault.SILENCE, NoAnswer)])
def test_an_apdu_that_is_not_answered(fault: Fault, error: type[Exception]) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.tap(Chip())
        card = await reader.wait_for_card(5)
        assert isinstance(card, ChipCard)
        emulator.misbehave(fault, on=0x2C)
        with pytest.raises(error):
            await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))
        emulator.misbehave(Fault.UNPLUG, on=0x2C)
        await card.release()

    in_memory(body, "?mode=passthrough")


def test_a_slow_card_is_waited_for() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.tap(Chip())
        card = await reader.wait_for_card(5)
        assert isinstance(card, ChipCard)
        emulator.misbehave(Fault.SLOW_CARD, on=0x2C)
        assert (await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))).ok

    in_memory(body, "?mode=passthrough")


def test_contact_mode_and_going_online() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        wait = asyncio.create_task(reader.wait_for_card(100, SALE))
        await asyncio.sleep(45)  # a round of the reader's own is over by then
        emulator.insert("visa")
        card = await wait
        assert card.entry_mode is EntryMode.CHIP
        assert (await reader.commands.authenticate(b"")).goes_online
        assert (await reader.commands.apply_host_response(b"")).code == 0
        wait = asyncio.create_task(reader.wait_for_card(100, SALE))
        emulator.remove()
        await asyncio.sleep(1)
        emulator.swipe("amex")
        assert (await wait).entry_mode is EntryMode.SWIPE

    in_memory(body, "?mode=contact")


def test_burst_mode() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        for way, mode in (("swipe", EntryMode.SWIPE), ("tap", EntryMode.CONTACTLESS)):
            wait = asyncio.create_task(reader.wait_for_card(10))
            await asyncio.sleep(1)
            getattr(emulator, way)("amex")
            card = await wait
            assert (card.masked_pan, card.entry_mode) == ("378282*****0005", mode)
        for chip, last in ((tapped("blocked"), ""), (tapped("maestro"), "9610")):
            wait = asyncio.create_task(reader.wait_for_card(10))
            await asyncio.sleep(1)
            emulator.tap(chip)
            if not last:
                with pytest.raises(TimedOut):
                    await wait
                continue
            card = await wait
            assert (card.masked_pan[-4:], card.entry_mode) == (last, EntryMode.CONTACTLESS)

    in_memory(body, "?mode=burst")


@pytest.mark.parametrize("interface", ["contactless", "contact"])
def test_apdus_pass_through(interface: str) -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        present = emulator.tap if interface == "contactless" else emulator.insert
        chip = Chip()
        wait = asyncio.create_task(reader.wait_for_card(10))
        await asyncio.sleep(1)
        present(chip)
        card = await wait
        assert isinstance(card, ChipCard)
        assert card.uid == (chip.uid if interface == "contactless" else b"")
        assert card.answer == (chip.atr if interface == "contact" else b"")
        answer = await card.transmit(Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256))
        assert answer.ok
        assert chip.asked == [Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", 256).encode()]
        emulator.tear()
        with pytest.raises(CardGone):
            await card.transmit(Command(0, 0xB2, 1, 0x0C, le=256))
        with pytest.raises(TimedOut):
            await reader.wait_for_card(5)
        present(chip)
        again = await reader.wait_for_card(5)
        assert isinstance(again, ChipCard)
        await again.release()

    in_memory(body, f"?mode=passthrough&interface={interface}")


def test_a_swipe_that_nobody_waits_for_is_lost() -> None:
    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        emulator.swipe("visa")
        with pytest.raises(TimedOut):
            await reader.wait_for_card(5)

    in_memory(body)


def test_a_trace_shows_nobody_s_card_and_can_be_read_back() -> None:
    lines: list[str] = []

    async def body(reader: VivopayReader, emulator: VivopayEmulator) -> None:
        reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
        await reader.close()
        await reader.open()
        for way in WAYS:
            wait = asyncio.create_task(reader.wait_for_card(10, SALE))
            await asyncio.sleep(1)
            getattr(emulator, way)("visa")
            await wait
            emulator.remove()

    in_memory(body)
    text = "".join(lines)
    pan = CARDS["visa"].pan
    assert pan not in text
    assert pan.encode().hex() not in text
    frames = [traced.data for traced in read_trace(lines)]
    for one in frames:
        parse(one)
    assert [json.loads(line)["what"] for line in lines][-1].startswith("transaction: OK (00h)")
