"""Payments by readers that speak their own bytes, on virtual time: the plug is pulled, the card is torn away."""

from __future__ import annotations

import asyncio

import pytest

from hw.errors import LineError, LineGone, ReaderError
from hw.reader import CardRemoved, ReaderBack, ReaderGone
from sim.balance import differences, journal_rows, ledger_rows
from sim.world import World
from terminal.events import CardRead, CardRefused, CardWanted
from terminal.money import Amount
from terminal.payment import State
from tests.e2e.plugged import KINDS, Counted, plugged

SALE = Amount(1250, "EUR")
SEALED = "vivopay, sealed"


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as world:
        yield world


def trying(world, kind, scenario):
    """Run ``scenario(till, reader, heard)`` with the reader plugged in; in the end both sides' books agree."""

    async def main():
        async with plugged(KINDS[kind]) as reader, world.activated(reader=reader.reader) as till:
            heard = Heard()
            listening = asyncio.create_task(heard.listen(till))
            await asyncio.sleep(0)
            try:
                await scenario(till, reader, heard)
            finally:
                listening.cancel()
            till.journal.verify()
            ledger = ledger_rows({"charges": await world.books()}, world.device["terminal_id"])
            assert differences(journal_rows(till.journal.payments()), ledger) == []

    world.run(main())


class Heard(list):
    """The events of a terminal so far."""

    def __init__(self):
        super().__init__()
        self._came = asyncio.Event()

    async def listen(self, till):
        async for event in till.events():
            self.append(event)
            self._came.set()

    async def until(self, kind):
        """Wait for an event of this kind."""
        while not any(isinstance(event, kind) for event in self):
            self._came.clear()
            await self._came.wait()


async def waiting(till, heard, seconds):
    """A charge whose card has been waited for so long."""
    charge = asyncio.create_task(till.charge(SALE, reference="order-17"))
    await heard.until(CardWanted)
    await asyncio.sleep(seconds)
    return charge


async def unharmed(till, reader):
    """Nothing of a payment is there; the reader is plugged in again, and the same reference is paid by its card."""
    assert till.journal.payments() == []
    with pytest.raises(LineError, match="no such port"):  # still away
        await till.charge(SALE, reference="order-17")
    assert till.journal.payments() == []
    reader.plug_in()
    await reader.present()
    payment = await till.charge(SALE, reference="order-17")
    assert payment.state is State.APPROVED
    assert [type(event) for event in reader.told if isinstance(event, ReaderGone | ReaderBack)] == [
        ReaderGone,
        ReaderBack,
    ]
    assert till.journal.unresolved() == []


def requests(world):
    return [call.request for call in world.app.host.exchanges.calls() if call.path == "/pos/charge"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_charge(world, kind):
    async def scenario(till, reader, heard):
        charge = await waiting(till, heard, 2)
        await reader.present()
        payment = await charge
        assert payment.state is State.APPROVED
        assert payment.entry_mode == ("chip" if kind.startswith("gemcore") else "contactless")
        (request,) = requests(world)
        assert ("encrypted_card" in request["card"]) == (kind == SEALED)
        assert ("track2" in request["card"]) != (kind == SEALED)
        assert "emv" not in request
        assert sum(isinstance(event, CardRead) for event in heard) == 1

    trying(world, kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plug_is_pulled_while_a_card_is_waited_for(world, kind):
    async def scenario(till, reader, heard):
        charge = await waiting(till, heard, 5)
        await reader.unplug()
        with pytest.raises(LineGone, match="gone") as caught:
            await charge
        assert caught.value.advice
        await unharmed(till, reader)

    trying(world, kind, scenario)


SPOKEN_TO = [kind for kind in KINDS if kind not in (SEALED, "vivopay, clear")]
"""Those whose cards the terminal asks itself."""


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", SPOKEN_TO)
def test_the_plug_is_pulled_in_an_exchange_with_the_card_and_between_two(world, kind, at, cut):
    """``before``: the answer of the card is lost. ``after``: it is the last that the reader says."""

    async def scenario(till, reader, heard):
        def pull():
            reader.line.cut = cut

        charge = await waiting(till, heard, 1)
        await reader.present(Counted(reader.kind.card(), at, pull))
        if (
            at == 4 and cut == "after" and reader.kind.url.startswith(("pn532", "vivopay"))
        ):  # it has said everything
            assert (await charge).state is State.APPROVED
            return
        with pytest.raises(LineGone, match="gone"):
            await charge
        assert not any(isinstance(event, CardRead) for event in heard)
        assert requests(world) == []
        await unharmed(till, reader)

    trying(world, kind, scenario)


@pytest.mark.parametrize("kind", ["vivopay, clear", SEALED])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_the_plug_is_pulled_while_the_reader_reads_the_card_itself(world, kind, at):
    async def scenario(till, reader, heard):
        def pull():
            reader.line.cut = "before"

        await reader.present(Counted(reader.kind.card(), at, pull))
        with pytest.raises(LineGone, match="gone"):
            await till.charge(SALE, reference="order-17")
        assert requests(world) == []
        await unharmed(till, reader)

    trying(world, kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_is_torn_away_and_the_next_one_counts(world, kind):
    async def scenario(till, reader, heard):
        charge = await waiting(till, heard, 1)
        await reader.present_torn()
        await heard.until(CardRefused)
        assert not charge.done()
        await asyncio.sleep(1)
        await reader.present()
        assert (await charge).state is State.APPROVED
        assert sum(isinstance(event, CardRefused) for event in heard) == 1
        assert sum(isinstance(event, CardWanted) for event in heard) == 1
        if "sealed" not in kind and "clear" not in kind:
            assert any(isinstance(event, CardRemoved) for event in reader.told)

    trying(world, kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_is_not_there_at_all(world, kind):
    async def scenario(till, reader, heard):
        await reader.unplug()
        with pytest.raises(ReaderError, match="no such port"):
            await till.charge(SALE, reference="order-17")
        assert till.journal.payments() == []

    trying(world, kind, scenario)
