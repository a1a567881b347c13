"""What every reader does, with no card at all."""

from __future__ import annotations

import asyncio

import pytest

from hw.conformance.session import Bench, can, let_go
from hw.errors import Cancelled, CardError, LineGone, ProtocolError, TimedOut
from hw.reader import Reader

MOMENT = 0.3
"""Seconds in which nobody presents a card, or somebody does once in a while."""


def test_it_takes_cards(bench: Bench) -> None:
    """It declares at least one way for a card to come."""
    assert any(can(bench.capabilities, name) for name in ("contact", "contactless", "stripe", "keyed"))


def test_it_opens_and_closes_and_opens_again(bench: Bench) -> None:
    """Opening what is open, and closing what is closed, does nothing."""

    async def work(reader: Reader) -> None:
        await reader.open()
        for _ in range(3):
            await reader.close()
            await reader.close()
            await reader.open()

    bench.run(work)


def test_a_wait_without_a_card_ends_on_time(bench: Bench) -> None:
    """It raises TimedOut; a card that is presented just then does not count."""

    async def work(reader: Reader) -> None:
        async with asyncio.timeout(bench.timeout):
            while True:
                try:
                    await let_go(await reader.wait_for_card(MOMENT))
                except TimedOut:
                    return
                except CardError:
                    pass
                await asyncio.sleep(MOMENT)

    bench.run(work)


def test_a_wait_can_be_called_off_and_another_begun(bench: Bench) -> None:
    """It raises Cancelled, and the reader is as good as before."""

    async def work(reader: Reader) -> None:
        called_off = 0
        async with asyncio.timeout(bench.timeout):
            while called_off < 2:
                wait = asyncio.ensure_future(reader.wait_for_card(None))
                await asyncio.wait([wait], timeout=MOMENT)
                reader.cancel()
                try:
                    await let_go(await wait)
                except Cancelled:
                    called_off += 1
                except CardError:
                    pass
                else:
                    await asyncio.sleep(MOMENT)

    bench.run(work)


def test_a_task_that_waits_can_be_cancelled(bench: Bench) -> None:
    """As any other in Python; the next wait then works."""

    async def work(reader: Reader) -> None:
        for _ in range(3):
            wait = asyncio.ensure_future(reader.wait_for_card(None))
            await asyncio.wait([wait], timeout=MOMENT)
            wait.cancel()
            await asyncio.wait([wait])
            assert wait.cancelled() or wait.exception() is None or isinstance(wait.exception(), CardError)
        try:
            await let_go(await reader.wait_for_card(MOMENT))
        except (TimedOut, CardError):
            return

    bench.run(work)


def test_there_is_one_wait_at_a_time(bench: Bench) -> None:
    """A second one is refused, and the first goes on."""

    async def work(reader: Reader) -> None:
        wait = asyncio.ensure_future(reader.wait_for_card(None))
        await asyncio.sleep(0)
        with pytest.raises(ProtocolError, match="already under way"):
            await reader.wait_for_card(MOMENT)
        reader.cancel()
        try:
            await let_go(await wait)
        except (Cancelled, CardError):
            return

    bench.run(work)


def test_closing_ends_a_wait(bench: Bench) -> None:
    """It raises LineGone, unless a card was faster."""

    async def work(reader: Reader) -> None:
        wait = asyncio.ensure_future(reader.wait_for_card(None))
        await asyncio.wait([wait], timeout=MOMENT)
        await reader.close()
        try:
            await wait
        except (LineGone, CardError):
            return

    bench.run(work)
