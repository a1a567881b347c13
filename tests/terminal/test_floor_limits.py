"""The host is away, and a chip is presented: what may be approved here, by the limits that the host has told."""

from __future__ import annotations

import asyncio
import copy

import httpx
import msgspec
import pytest

from hw.card import EntryMode, ResultCard, SealedCard, StripeCard
from sim.card import inserted, tapped
from sim.host import viopay_activation
from sim.reader.handed import HandedReader
from terminal.errors import HostUnreachable
from terminal.money import Amount
from terminal.payment import State
from tests.terminal.test_cards import ENCRYPTS, TRACK_2, Chip, sealed
from tests.terminal.worlds import control

STRIPE = StripeCard(
    pan="4761739001010119", expiry="2812", service_code="201", track2="4761739001010119=28122011143804400000"
)
VISA, MAESTRO, ELSEWHERE = ("8407A0000000031010", "8407A0000000043060", "8407A0000000032020")


def by_kernel(tags: str, mode: EntryMode = EntryMode.CHIP) -> ResultCard:
    return ResultCard(track2=TRACK_2, entry_mode=mode, tags=bytes.fromhex(tags))


def away(request):
    raise httpx.ConnectError("no", request=request)


async def here(till, minor, reference):
    """Whether a charge is approved without the host, which is away."""
    try:
        payment = await till.charge(Amount(minor, "EUR"), reference=reference)
    except HostUnreachable:
        return False
    assert payment.state is State.OFFLINE
    return True


def charged(make, card, minor=1000):
    """Whether a charge is approved here while the host is away, and what the host has when it is back."""
    world = make()
    reader = HandedReader(card, capabilities=ENCRYPTS) if isinstance(card, SealedCard) else HandedReader(card)

    async def main():
        async with world.activated(reader=reader) as till:
            world.network.before = away
            approved = await here(till, minor, "r")
            world.network.before = lambda request: None
            await till.resolve()
            assert [payment.state for payment in till.journal.unresolved()] == []
            return approved, [one["reference"] for one in await world.books()]

    return world.run(main())


@pytest.mark.parametrize(
    "card",
    [
        Chip(inserted("visa-credit"), EntryMode.CHIP),
        Chip(tapped("mastercard-credit")),
        Chip(tapped("amex")),
        by_kernel(VISA),
        by_kernel("4F07A0000000031010", EntryMode.CONTACTLESS),
        sealed(entry_mode=EntryMode.CHIP, tags=bytes.fromhex("6F09" + VISA)),
        sealed(entry_mode=EntryMode.SWIPE),
        STRIPE,
    ],
    ids=["chip", "tap", "phone", "a reader's kernel", "its tap", "sealed", "a sealed stripe", "a stripe"],
)
def test_below_the_floor_limit_of_its_application_a_card_is_approved_here_and_forwarded(make, card):
    assert charged(make, card) == (True, ["r"])


@pytest.mark.parametrize(
    "card",
    [
        Chip(inserted("maestro"), EntryMode.CHIP),
        by_kernel(MAESTRO),
        by_kernel(ELSEWHERE),
        by_kernel("9F2608" + "00" * 8),
        by_kernel("84FF"),
        by_kernel("8401A0", EntryMode.CONTACTLESS),
        sealed(entry_mode=EntryMode.CONTACTLESS),
    ],
    ids=["no limit but zero", "in a reader's kernel", "no entry", "no AID", "no tags", "no name", "sealed, no AID"],
)
def test_without_one_it_needs_the_host(make, card):
    assert charged(make, card, minor=1) == (False, [])


def test_the_limits_are_those_of_the_configuration(make, monkeypatch):
    plain = viopay_activation.terminal_config

    def limited(device, merchant_id):
        document = copy.deepcopy(plain(device, merchant_id))
        document["security"] |= {"contactless_limit": "900", "cvm_limit": "700"}
        return document

    monkeypatch.setattr(viopay_activation, "terminal_config", limited)
    asked = [(700, "tap"), (701, "tap"), (701, "chip"), (901, "chip"), (901, "stripe")]
    cards = {
        "tap": lambda: Chip(tapped("visa-credit")),
        "chip": lambda: Chip(inserted("visa-credit"), EntryMode.CHIP),
        "stripe": lambda: STRIPE,
    }
    world = make()

    async def main():
        async with world.activated(reader=HandedReader(*(cards[how]() for _, how in asked))) as till:
            world.network.before = away
            return [await here(till, minor, f"{minor} {how}") for minor, how in asked]

    assert world.run(main()) == [True, False, True, True, True]


def test_parameters_that_change_are_in_force_at_the_next_card(make):
    world = make()
    chips = [Chip(inserted("visa-credit"), EntryMode.CHIP) for _ in range(2)]

    async def main():
        async with world.activated(reader=HandedReader(*chips)) as till:
            keeping = asyncio.create_task(till.keep())
            host = world.app.host
            for each in host.parameters["aids"]:
                each["floor_limit"] = "0"
            host.parameters_json = msgspec.json.encode(host.parameters)
            world.network.before = away
            before = await here(till, 1000, "before")
            world.network.before = lambda request: None
            await control(world, actions=["refresh_parameters"])
            await asyncio.sleep(300)
            world.network.before = away
            after = await here(till, 1000, "after")
            keeping.cancel()
            return before, after

    assert world.run(main()) == (True, False)
