"""Every kind of card that a reader may give, charged at the real host: what is read, sent and refused."""

from __future__ import annotations

import asyncio

import pytest

from hw.apdu import Command
from hw.card import ChipCard, EntryMode, ResultCard, SealedCard, StripeCard
from hw.errors import CardGone, LineGone, NoAnswer, TimedOut
from hw.reader import Capabilities
from sim.card import VirtualCard, inserted, tapped
from sim.reader.handed import HandedReader
from terminal.cards import CHIP_READ
from terminal.emv.read import CardData
from terminal.errors import LiveGuardError, PaymentRefused
from terminal.events import CardRead, CardRefused, CardWanted, PaymentChanged, SuspectedDuplicate
from terminal.hosts.viopay_wire import Card as CardFields
from terminal.money import Amount
from terminal.payment import State
from terminal.settings import LabSettings
from tests.terminal.worlds import Told, paying

TWELVE_FIFTY = Amount(1250, "EUR")
PAN = "4761739001010119"
TRACK_2 = bytes.fromhex("4761739001010119D28122011000001230000F")
ENCRYPTS = Capabilities(contact=True, contactless=True, stripe=True, own_kernel=True, encrypts=True)


class Chip(ChipCard):
    """A virtual card right here. ``trouble``: what the n-th command meets in place of its answer."""

    def __init__(self, card: VirtualCard, mode: EntryMode = EntryMode.CONTACTLESS, trouble: dict | None = None):
        super().__init__(mode, card.ats if mode is EntryMode.CONTACTLESS else card.atr, card.uid)
        self.card, self.trouble, self.commands, self.released = card, trouble or {}, [], 0

    async def _exchange(self, command):
        self.commands.append(Command.decode(command))
        meets = self.trouble.get(len(self.commands))
        if isinstance(meets, Exception):
            raise meets
        if meets is not None:
            await asyncio.sleep(meets)
        return self.card.transmit(command)

    async def release(self):
        self.released += 1


def sealed(**changes):
    values = {
        "scheme": "dukpt-aes",
        "ksn": bytes.fromhex("123456789012345600000001"),
        "data": bytes(range(32)),
        "masked_pan": "476173******0119",
        "entry_mode": EntryMode.CONTACTLESS,
        "expiry": "2812",
    }
    return SealedCard(**values | changes)


def charges(world):
    """What the host was asked, opened."""
    return [call.request for call in world.app.host.exchanges.calls() if call.path == "/pos/charge"]


def live(world, scenario, **changes):
    """The scenario on a terminal that was activated against the simulator and is now pointed at a live host."""

    async def main():
        async with world.activated():
            pass
        async with world.terminal(url="https://api.viopay.io", **changes) as till:
            return await scenario(till)

    return world.run(main())


@pytest.fixture
def world(make):
    return make()


# -- chips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "last", "sequence"),
    [
        ("visa-credit", EntryMode.CONTACTLESS, "0119", "01"),
        ("visa-credit", EntryMode.CHIP, "0119", "01"),
        ("visa-debit", EntryMode.CHIP, "0010", "01"),
        ("mastercard-credit", EntryMode.CONTACTLESS, "0010", "00"),
        ("mastercard-debit", EntryMode.CHIP, "0012", "00"),
        ("maestro", EntryMode.CHIP, "9610", "00"),
        ("amex", EntryMode.CONTACTLESS, "0005", "00"),
        ("jcb", EntryMode.CHIP, "0000", "00"),
        ("discover", EntryMode.CONTACTLESS, "1117", "00"),
        ("girocard-with-maestro", EntryMode.CHIP, "9610", None),
    ],
)
def test_a_chip_is_read_and_charged_with_its_track_2_and_nothing_else(world, name, mode, last, sequence):
    card = Chip((tapped if mode is EntryMode.CONTACTLESS else inserted)(name), mode)

    async def scenario(till):
        told = Told(till)
        payment = await till.charge(TWELVE_FIFTY, reference="r")
        assert (payment.state, payment.entry_mode) == (State.APPROVED, mode)
        assert payment.masked_pan.endswith(last)
        assert [type(event) for event in told[object]] == [CardWanted, CardRead, PaymentChanged, PaymentChanged]
        assert told[CardRead][0].entry_mode == mode

    _, differences = paying(world, scenario, reader=HandedReader(card))
    assert (card.released, differences) == (1, [])
    (asked,) = charges(world)
    assert set(asked) == {"amount", "entry_mode", "reference", "card", "fallback"}
    assert set(asked["card"]) == {"masked_pan", "expiry", "track2"} | ({"sequence"} if sequence else set())
    assert asked["card"].get("sequence") == sequence
    assert asked["entry_mode"] == mode


def test_the_card_is_told_the_sale_and_a_number_that_nobody_knew_before(world):
    cards = [Chip(tapped("visa-credit")) for _ in range(2)]

    async def scenario(till):
        for number in range(2):
            await till.charge(TWELVE_FIFTY, reference=f"r{number}")

    paying(world, scenario, reader=HandedReader(*cards))
    started = [next(command.data for command in card.commands if command.ins == 0xA8) for card in cards]
    assert {data[6:12].hex() for data in started} == {"000000001250"}
    assert {data[18:20].hex() for data in started} == {"0300"}  # the terminal stands in Greece
    assert started[0][-4:] != started[1][-4:]


@pytest.mark.parametrize("name", ["blocked", "application-blocked", "not-for-payment", "garbled", "see-phone"])
def test_a_card_that_cannot_pay_is_let_go_of_and_the_next_one_counts(world, name):
    bad, good = Chip(tapped(name)), Chip(tapped("visa-credit"))

    async def scenario(till):
        told = Told(till)
        payment = await till.charge(TWELVE_FIFTY, reference="r")
        assert payment.state is State.APPROVED
        (refused,) = told[CardRefused]
        assert refused.advice
        assert "wipe" not in refused.advice
        assert len(told[CardWanted]) == 1

    paying(world, scenario, reader=HandedReader(bad, good))
    assert (bad.released, good.released) == (1, 1)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_card_that_is_torn_away_counts_when_it_is_back(world, at):
    torn = Chip(tapped("visa-credit"), trouble={at: CardGone("the card was taken away")})

    async def scenario(till):
        told = Told(till)
        assert (await till.charge(TWELVE_FIFTY, reference="r")).state is State.APPROVED
        assert [event.reason for event in told[CardRefused]] == ["the card was taken away"]

    assert paying(world, scenario, reader=HandedReader(torn, Chip(tapped("visa-credit"))))[1] == []
    assert (torn.released, len(torn.commands)) == (1, at)


@pytest.mark.parametrize("error", [LineGone("the device is gone"), NoAnswer("no answer to the card")])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_reader_that_goes_while_the_card_is_read_ends_the_charge_and_leaves_nothing(world, error, at):
    card = Chip(tapped("visa-credit"), trouble={at: error})

    async def scenario(till):
        with pytest.raises(type(error), match=str(error)):
            await till.charge(TWELVE_FIFTY, reference="r")
        assert till.journal.payments() == []
        assert charges(world) == []
        assert (await till.charge(TWELVE_FIFTY, reference="r")).state is State.APPROVED

    assert paying(world, scenario, reader=HandedReader(card, Chip(tapped("visa-credit"))))[1] == []
    assert card.released == 1


def test_a_card_that_is_never_done_is_given_up(world):
    slow = Chip(inserted("visa-credit"), EntryMode.CHIP, trouble={2: CHIP_READ, 3: CHIP_READ})

    async def scenario(till):
        told = Told(till)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimedOut):
            await till.charge(TWELVE_FIFTY, reference="r")
        assert asyncio.get_running_loop().time() - began < till.settings.card_timeout + 1
        (refused,) = told[CardRefused]
        assert refused.reason == f"the card was not read within {CHIP_READ:g} seconds"
        assert "leave it in" in refused.advice
        assert till.journal.payments() == []

    paying(world, scenario, reader=HandedReader(slow))
    assert slow.released == 1


def test_a_charge_that_is_called_off_while_the_card_is_read_lets_go_of_it(world):
    slow = Chip(tapped("visa-credit"), trouble={2: 10.0})

    async def scenario(till):
        charge = asyncio.create_task(till.charge(TWELVE_FIFTY, reference="r"))
        await asyncio.sleep(5)
        assert len(slow.commands) == 2
        charge.cancel()
        with pytest.raises(asyncio.CancelledError):
            await charge
        assert slow.released == 1
        assert till.journal.payments() == []

    paying(world, scenario, reader=HandedReader(slow))


# -- what readers have read themselves ----------------------------------------------------------------------------


def test_a_card_that_the_readers_kernel_has_read(world):
    card = ResultCard(track2=TRACK_2, entry_mode=EntryMode.CHIP, tags=bytes.fromhex("9F2608" + "00" * 8))

    async def scenario(till):
        return await till.charge(TWELVE_FIFTY, reference="r")

    payment, differences = paying(world, scenario, reader=HandedReader(card))
    assert (payment.state, payment.entry_mode, differences) == (State.APPROVED, EntryMode.CHIP, [])
    assert set(charges(world)[0]["card"]) == {"masked_pan", "expiry", "track2"}


@pytest.mark.parametrize("scheme", ["dukpt-aes", "dukpt-tdes"])
@pytest.mark.parametrize("mode", [EntryMode.SWIPE, EntryMode.CHIP, EntryMode.CONTACTLESS])
def test_what_a_reader_has_encrypted_is_passed_through_unopened(world, scheme, mode):
    card = sealed(scheme=scheme, entry_mode=mode)

    async def scenario(till):
        return await till.charge(TWELVE_FIFTY, reference="r")

    payment, differences = paying(world, scenario, reader=HandedReader(card, capabilities=ENCRYPTS))
    assert (payment.state, payment.entry_mode, payment.masked_pan) == (State.APPROVED, mode, "476173******0119")
    assert differences == []
    assert charges(world)[0]["card"] == {
        "masked_pan": "476173******0119",
        "expiry": "2812",
        "encrypted_card": {"scheme": scheme, "ksn": card.ksn.hex().upper(), "data": card.data.hex().upper()},
    }


@pytest.mark.parametrize("expiry", ["", "0000", "2813", "28"])
@pytest.mark.parametrize("masked", ["**", "************0119"])
def test_what_such_a_reader_does_not_show_is_left_out(world, expiry, masked):
    async def scenario(till):
        return await till.charge(TWELVE_FIFTY, reference="r")

    card = sealed(expiry=expiry, masked_pan=masked)
    payment, _ = paying(world, scenario, reader=HandedReader(card, capabilities=ENCRYPTS))
    assert payment.state is State.APPROVED
    assert "expiry" not in charges(world)[0]["card"]
    assert bool(payment.card) == (masked != "**")


def test_only_such_a_card_may_leave_its_expiry_out():
    for fields in ({"track2": {}}, {"pan": {}}):
        with pytest.raises(ValueError, match="expiry"):
            CardFields(masked_pan="**0119", **fields).check()
    CardFields(masked_pan="**0119", encrypted_card={}).check()
    with pytest.raises(ValueError, match="expiry"):
        CardFields(masked_pan="**0119", expiry="2813", encrypted_card={}).check()


def test_a_pin_that_was_typed_goes_with_no_number_that_is_hidden(world):
    async def scenario(till):
        with pytest.raises(PaymentRefused, match="keeps to itself"):
            await till.charge(TWELVE_FIFTY, reference="r", pin="1234")
        assert till.journal.payments() == []

    paying(world, scenario, reader=HandedReader(sealed(), capabilities=ENCRYPTS))
    assert charges(world) == []


def test_the_same_card_twice_is_suspected_however_it_is_read(world):
    pairs = [
        (Chip(tapped("visa-credit")), StripeCard(PAN, "2812", "201", f"{PAN}=2812201")),
        (sealed(), sealed(ksn=bytes(10), data=bytes(16))),
    ]
    apart = [(sealed(), sealed(masked_pan="476173******0010")), (sealed(masked_pan="**"), sealed(masked_pan="**"))]

    async def scenario(till):
        told, found = Told(till), []
        for number, _ in enumerate([*pairs, *apart]):
            before = len(told[SuspectedDuplicate])
            for half in "ab":
                await till.charge(Amount(1000 + 100 * number, "EUR"), reference=f"{number}{half}")
            found.append(len(told[SuspectedDuplicate]) - before)
        return found

    cards = [card for pair in (*pairs, *apart) for card in pair]
    found, _ = paying(world, scenario, reader=HandedReader(*cards, capabilities=ENCRYPTS))
    assert found == [1, 1, 0, 0]


# -- what may go live ---------------------------------------------------------------------------------------------

CLEAR = [
    pytest.param(lambda: Chip(tapped("visa-credit")), id="tapped"),
    pytest.param(lambda: Chip(inserted("visa-credit"), EntryMode.CHIP), id="inserted"),
    pytest.param(lambda: ResultCard(track2=TRACK_2, entry_mode=EntryMode.CHIP), id="read by the reader"),
    pytest.param(lambda: StripeCard(PAN, "2812", "201", f"{PAN}=2812201"), id="swiped"),
]


@pytest.mark.parametrize("card", CLEAR)
@pytest.mark.parametrize("encrypts", [False, True])
def test_a_card_in_the_clear_never_goes_live_whatever_its_reader_says_of_itself(world, card, encrypts):
    made = card()

    async def scenario(till):
        told = Told(till)
        with pytest.raises(LiveGuardError, match="card data in the clear"):
            await till.charge(TWELVE_FIFTY, reference="r")
        assert till.journal.payments() == []
        assert bool(told[CardWanted]) == encrypts  # where the reader is none that may, nobody is asked for a card
        assert told[CardRead] == []

    live(world, scenario, reader=HandedReader(made, capabilities=Capabilities(encrypts=encrypts)))
    assert world.network.requests == []
    assert not isinstance(made, Chip) or made.released == encrypts


def test_what_a_reader_has_encrypted_may_go_live(world):
    async def scenario(till):
        return await till._cards.read(TWELVE_FIFTY, "r", typed=None, pin=None)

    card = sealed()
    assert live(world, scenario, reader=HandedReader(card, capabilities=ENCRYPTS)) is card


def test_in_a_laboratory_a_chip_is_one_of_the_published_test_cards(world):
    async def scenario(till):
        card = await till._cards.read(TWELVE_FIFTY, "r", typed=None, pin=None)
        assert isinstance(card, CardData)

    lab = LabSettings(clear_card_data_on_live_host=True)
    live(world, scenario, reader=HandedReader(Chip(tapped("visa-credit"))), lab=lab)


def test_a_card_s_repr_shows_no_more_than_may_be_shown():
    card = ResultCard(track2=TRACK_2, entry_mode=EntryMode.CHIP)
    assert repr(card) == "ResultCard(476173******0119)"
    assert repr(Chip(tapped("visa-credit"))) == "Chip(contactless)"
