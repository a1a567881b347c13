"""What a reader does with cards, in each way that it declares."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from hw.apdu import Command
from hw.card import ChipCard, EntryMode, ResultCard, SealedCard, StripeCard
from hw.conformance.session import WAYS, Bench
from hw.errors import CardError, CardGone
from hw.reader import CardInserted, Reader
from hw.trace import read_trace

pytestmark = pytest.mark.presents

NUMBER = re.compile(r"[0-9]{12,}")
DIRECTORIES = {EntryMode.CHIP: b"1PAY.SYS.DDF01", EntryMode.CONTACTLESS: b"2PAY.SYS.DDF01"}
UNKNOWN = Command(0x00, 0x02, 0x00, 0x00)
"""An instruction that no payment card has."""
OK = 0x9000
LOOK = 0.05
"""Seconds between two words to a card that is about to be taken away."""

each_way = pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.capability(name)) for way, (name, _) in WAYS.items()]
)
each_chip = pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.capability(WAYS[way][0], "apdu")) for way in ("tap", "insert")],
)


def directory(card: ChipCard) -> Command:
    """SELECT the directory of payment applications."""
    return Command(0x00, 0xA4, 0x04, 0x00, DIRECTORIES[card.entry_mode], 256)


@each_way
def test_a_card_comes_as_the_reader_says(bench: Bench, way: str) -> None:
    """What it hands over is of the kind that its capabilities promise, and shows no number."""

    async def work(reader: Reader) -> None:
        card = await bench.card(reader, way)
        assert not NUMBER.search(repr(card))
        if can_be_asked(bench, way):
            assert isinstance(card, ChipCard)
            assert card.answer or card.uid
            await card.release()
        elif bench.capabilities.encrypts:
            assert isinstance(card, SealedCard)
            assert card.ksn
            assert card.data
        else:
            assert isinstance(card, StripeCard | ResultCard | SealedCard)
        if not isinstance(card, ChipCard):
            assert not NUMBER.search(card.masked_pan)

    bench.run(work)


def can_be_asked(bench: Bench, way: str) -> bool:
    """Whether cards that come so are chips which are spoken to from here."""
    return way != "swipe" and not bench.capabilities.own_kernel


@each_way
def test_a_trace_can_be_read_and_has_nobodys_card_in_it(bench: Bench, way: str) -> None:
    """Every frame has its meaning in words; the number that was read is in none."""

    lines: list[str] = []

    async def work(reader: Reader) -> None:
        card = await bench.card(reader, way)
        if isinstance(card, ChipCard):
            with suppress(CardGone):  # taken away too soon
                await card.transmit(directory(card))
            await card.release()
        frames = list(read_trace(lines))
        assert frames
        assert all(frame.what for frame in frames)
        if isinstance(card, StripeCard | ResultCard):
            for frame in frames:
                assert card.pan not in frame.frame
                assert card.pan.encode("ascii") not in frame.data

    bench.run(work, lines.append)


@each_chip
def test_a_chip_answers(bench: Bench, way: str) -> None:
    """The same each time; and goes on after a command that it does not know."""

    async def talk(card: ChipCard) -> None:
        first = await card.transmit(directory(card))
        assert (await card.transmit(UNKNOWN)).sw != OK
        assert await card.transmit(directory(card)) == first

    async def work(reader: Reader) -> None:
        await bench.with_chip(reader, way, talk)
        assert any(isinstance(event, CardInserted) for event in bench.events)

    bench.run(work)


@each_chip
def test_a_chip_that_was_let_go_of_is_not_spoken_to(bench: Bench, way: str) -> None:
    """Letting go twice is once."""

    async def work(reader: Reader) -> None:
        card = await bench.card(reader, way)
        assert isinstance(card, ChipCard)
        await card.release()
        await card.release()
        with pytest.raises(CardGone):
            await card.transmit(directory(card))

    bench.run(work)


@each_chip
def test_a_chip_that_is_taken_away_is_told_and_the_next_one_works(bench: Bench, way: str) -> None:
    """While it is spoken to; within the time that a person is waited for."""

    async def work(reader: Reader) -> None:
        card = await bench.card(reader, way)
        assert isinstance(card, ChipCard)

        async def talk_on() -> None:
            async with asyncio.timeout(bench.timeout):
                while True:
                    await card.transmit(directory(card))
                    await asyncio.sleep(LOOK)

        bench.ask("take the card away now")
        with pytest.raises(CardError):
            await talk_on()
        await card.release()

        async def talk(card: ChipCard) -> None:
            await card.transmit(directory(card))

        await bench.with_chip(reader, way, talk)

    bench.run(work)
