"""A canary card in ViVOpay readers and behind PC/SC: read, refused, torn and garbled, with every log and trace on.

None of its data is in anything written, whichever way it is written down.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from hw import vivopay_msr as msr
from hw.apdu import Command
from hw.card import Card, ChipCard
from hw.errors import ReaderError
from hw.line import Link
from hw.pan import luhn_digit
from hw.reader import Reader, Sale, open_reader
from hw.trace import Tracer
from hw.vivopay_frames import BurstPayload, build_answer, build_payload
from hw.vivopay_tlv import MSR, Cover, Item, encode
from sim.reader.memory import MemoryLine
from sim.reader.stripes import stripe
from sim.reader.vivopay import VivopayEmulator
from sim.reader.vivopay_faults import Fault
from sim.virtual_time import run
from tests.hw.contact import T1
from tests.hw.scards import NOT_TRANSACTED, opened, scards, taken
from tests.hw.test_secrecy import everything

PAN = "499900112233445" + luhn_digit("499900112233445")
HOLDER = "WREN/JENNY"
TRACK2 = bytes.fromhex(f"{PAN}D28122017531908642000F")
STRIPE = stripe("canary", PAN, "2812", "201", HOLDER)
PIN_BLOCK = bytes.fromhex("2412345FFFFFFFFF")
SECRETS = (
    PAN,
    PAN[5:13],
    PAN.encode().hex(),
    PAN[4:14].encode().hex(),
    "7531908642",
    b"7531908642".hex(),
    HOLDER,
    HOLDER.encode().hex(),
    "WREN",
    b"JENNY".hex(),
    PIN_BLOCK.hex()[:8],
)
"""In the clear, in nibbles, and in hex of its characters; and of each a part."""

RECORDS = {
    0xA4: bytes.fromhex("6F248407A0000000031010A519500456495341BF0C10")
    + b"\x5f\x20\x0a"
    + HOLDER.encode()
    + b"\x9f\x4d\0",
    0xA8: bytes.fromhex("770A82021800940408010100"),
    0xB2: b"\x70\x27\x57\x13" + TRACK2 + b"\x5a\x08" + TRACK2[:8] + b"\x9f\x1f\x05" + b"75319",
}


class Chip:
    """Answers with its records, whole or garbled."""

    uid, ats, atr = bytes.fromhex("04A1B2C3"), bytes.fromhex("0578807002"), bytes.fromhex("3B600000")

    def __init__(self, garble: Callable[[bytes], bytes] = lambda said: said) -> None:
        self._garble = garble

    def transmit(self, command: bytes) -> bytes:
        said = RECORDS.get(command[1], b"")
        return self._garble(said) + (b"\x90\0" if said else b"\x6d\0")


GARBLES: list[Callable[[bytes], bytes]] = [
    lambda said: said,
    lambda said: said[:-3],
    lambda said: said[2:],
    lambda said: said + TRACK2,
    lambda said: b"\x17" + said[1:],
    lambda said: said.replace(b"\x57", b"\x17"),
]


@contextmanager
def written() -> Iterator[list[str]]:
    """Everything that is written meanwhile: what a test adds, and the log of all there is."""
    log, root = io.StringIO(), logging.getLogger()
    handler, before = logging.StreamHandler(log), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    lines: list[str] = []
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        lines.append(log.getvalue())


def searched(lines: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    out, err = capfd.readouterr()
    text = "\n".join([*lines, out, err])
    assert PAN[:4] in text  # the masked number is there, so we look in the right place
    assert [secret for secret in SECRETS if secret.lower() in text.lower()] == []


async def tell(lines: list[str], waited: Awaitable[Card]) -> None:
    """What became of a wait, as anybody could write it down; a chip is asked for its records, and told a PIN."""
    try:
        card = await waited
        lines.append(f"{card!r} {card} {waited!r}")
        if isinstance(card, ChipCard):
            for ins in (0xA4, 0xA8, 0xB2, 0x00):
                lines.append(repr(await card.transmit(Command(0, ins, 1, 0x0C, le=256))))
            lines.append(repr(await card.transmit(Command(0, 0x20, 0, 0x88, PIN_BLOCK))))
            await card.release()
    except ReaderError as error:
        lines.append(everything(error) + error.advice)


def with_reader(
    options: str, seal, body: Callable[[Reader, VivopayEmulator, MemoryLine, list[str]], Awaitable[None]]
):
    lines: list[str] = []

    async def main() -> None:
        line = MemoryLine()
        emulator = VivopayEmulator(line, seal=seal)

        async def open_link(_url: str, *, name: str) -> Link:
            return line.link

        running = asyncio.create_task(emulator.run())
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr("hw.reader.open_link", open_link)
            reader = open_reader(f"vivopay:///dev/ttyACM0{options}")
            reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
            async with reader:
                await body(reader, emulator, line, lines)
            lines.append(f"{reader!r} {reader.statistics!r} {emulator!r}")
        await line.close()
        await running

    run(main())
    return lines


@pytest.mark.parametrize(
    ("mode", "seal"),
    [
        ("activate", None),
        ("activate", "aes"),
        ("contact", None),
        ("contact", "tdes"),
        ("burst", None),
        ("passthrough", None),
        ("passthrough&interface=contact", None),
    ],
)
def test_nothing_that_is_written_shows_the_card(mode: str, seal, capfd: pytest.CaptureFixture[str]) -> None:
    async def body(reader: Reader, emulator: VivopayEmulator, line: MemoryLine, lines: list[str]) -> None:
        for fault in (None, *(fault for fault in Fault if fault is not Fault.UNPLUG)):
            for garble in GARBLES:
                for way, card in (("tap", Chip(garble)), ("insert", Chip(garble)), ("swipe", STRIPE)):
                    wait = asyncio.create_task(reader.wait_for_card(3, Sale(1250, 978)))
                    await asyncio.sleep(1)
                    if fault is not None:
                        emulator.misbehave(fault, on={"contact": 0x60, "activate": 0x02}.get(mode, 0x2C))
                    getattr(emulator, way)(card)
                    await tell(lines, wait)
                    emulator.remove()

    with written() as lines:
        lines += with_reader(f"?mode={mode}", seal, body)
    searched(lines, capfd)


NONSENSE = [
    b"\1" + Item(0x57, TRACK2, Cover.MASKED).encode(),
    b"\1" + Item(0x17, TRACK2).encode(),
    b"\x08" + Item(0xDFEF17, f"%B{PAN}^{HOLDER}^2812201".encode()).encode(),
    b"\x08" + Item(MSR, msr.build(msr.Swipe({1: f"%B{PAN}^{HOLDER}^2812".encode(), 2: b";49"}))).encode(),
    b"\1" + encode((Item(0x57, TRACK2), Item(0x5F20, HOLDER.encode())))[:-3],
    TRACK2,
    f"%B{PAN}^{HOLDER}^28122017531908642000?".encode(),
]


@pytest.mark.parametrize("options", ["", "?mode=contact", "?encrypts=yes", "?mode=burst"])
def test_nor_does_a_reader_that_talks_nonsense(options: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def body(reader: Reader, emulator: VivopayEmulator, line: MemoryLine, lines: list[str]) -> None:
        for data in NONSENSE:
            for command in (0x02, 0x60, 0x2C, 0x61, 0x33):
                for status in (0x00, 0x01, 0x0A, 0x23, 0x77):
                    wait = asyncio.create_task(reader.wait_for_card(1))
                    await asyncio.sleep(0.5)
                    await line.write(build_answer(command, status, data))
                    if data[:1] == b"%":
                        await line.write(build_payload(BurstPayload(0, 2, data)))
                    await tell(lines, wait)

    with written() as lines:
        lines += with_reader(options, None, body)
    searched(lines, capfd)


def test_nor_does_the_pcsc_service(capfd: pytest.CaptureFixture[str]) -> None:
    async def main(lines: list[str]) -> None:
        with scards("ACS 00 00") as service:
            reader, _ = opened()
            reader.tracer = Tracer(lines.append, lambda: 1.0)
            async with reader:
                for garble in GARBLES:
                    service.insert("ACS 00 00", T1, Chip(garble).transmit)
                    await tell(lines, taken(reader))
                    service.remove("ACS 00 00")
                service.insert("ACS 00 00", T1, lambda _: TRACK2)  # without status words
                await tell(lines, taken(reader))
                service.remove("ACS 00 00")
                service.slots["ACS 00 00"].transmitting = NOT_TRANSACTED
                service.insert("ACS 00 00", T1, Chip().transmit)
                await tell(lines, taken(reader))
            lines.append(f"{reader!r} {reader.statistics!r}")

    with written() as lines, pytest.MonkeyPatch.context() as patched:
        patched.setattr("hw.pcsc.NOTICES", 0.01)
        asyncio.run(main(lines), debug=True)
    searched(lines, capfd)
