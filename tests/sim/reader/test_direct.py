"""The reader without a line."""

from __future__ import annotations

import asyncio

import pytest

from hw.apdu import Command
from hw.card import ChipCard, EntryMode, StripeCard
from hw.errors import BadAddress, CardGone
from hw.reader import Capabilities, CardInserted, open_reader, parse_address
from sim import virtual_time
from sim.reader.direct import AGAIN, DirectReader

SELECT = Command(0, 0xA4, 4, 0, b"2PAY.SYS.DDF01", le=256)


def reader(url: str) -> DirectReader:
    return DirectReader(parse_address(url))


@pytest.mark.parametrize(
    ("url", "mode", "can"),
    [
        ("sim://visa-credit", EntryMode.CONTACTLESS, Capabilities(contactless=True)),
        ("sim://visa-credit?entry=tap", EntryMode.CONTACTLESS, Capabilities(contactless=True)),
        ("sim://mastercard-credit?entry=insert", EntryMode.CHIP, Capabilities(contact=True)),
        ("sim://amex?entry=swipe", EntryMode.SWIPE, Capabilities(stripe=True)),
    ],
)
def test_each_way_of_presenting(url, mode, can):
    async def main():
        async with reader(url) as made:
            card = await made.wait_for_card(1)
            assert (card.entry_mode, made.capabilities, made.statistics.openings) == (mode, can, 1)
            return card

    card = virtual_time.run(main())
    assert isinstance(card, StripeCard if mode is EntryMode.SWIPE else ChipCard)


def test_a_card_is_presented_anew_each_time_and_not_without_a_pause():
    async def main():
        told = []
        async with reader("sim://visa-credit") as made:
            made.on_event = told.append
            first = await made.wait_for_card(1)
            assert (await first.transmit(SELECT)).ok
            began = asyncio.get_running_loop().time()
            second = await made.wait_for_card(30)
            assert asyncio.get_running_loop().time() - began == AGAIN
            with pytest.raises(CardGone):
                await first.transmit(SELECT)
            assert (await second.transmit(SELECT)).ok
            await second.release()
            with pytest.raises(CardGone):
                await second.transmit(SELECT)
            third = await made.wait_for_card(30)
        with pytest.raises(CardGone):
            await third.transmit(SELECT)
        return told

    assert virtual_time.run(main()) == [CardInserted(url="sim://visa-credit")] * 3


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sim://visa", "no card named 'visa'"),
        ("sim://", "no card named ''"),
        ("sim://jcb?entry=throw", "entry is one of"),
        ("sim://jcb?baud=9600", "no option 'baud'"),
        ("sim://see-phone?entry=insert", "no contacts"),
        ("sim://not-for-payment?entry=swipe", "no stripe"),
        ("sim:///nowhere/card.toml", "No such file"),
    ],
)
def test_a_url_that_names_no_card_says_so_at_once(url, why):
    with pytest.raises(BadAddress, match=why) as caught:
        reader(url)
    assert caught.value.advice


def test_it_is_found_by_its_entry_point(monkeypatch):
    class Point:
        name = "sim"

        @staticmethod
        def load():
            return DirectReader

    monkeypatch.setattr("hw.reader.entry_points", lambda group: [Point] if group == "tillwright.readers" else [])
    assert isinstance(open_reader("sim://visa-credit"), DirectReader)
