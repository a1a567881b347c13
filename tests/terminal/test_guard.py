from __future__ import annotations

import pytest

from hw.pan import luhn_digit
from hw.reader import DRIVERS, open_reader, parse_address
from sim.card import card_file, names
from sim.reader.direct import DirectReader
from sim.reader.stripes import CARDS
from terminal import guard
from terminal.crypto.policy import Role
from terminal.errors import LiveGuardError
from terminal.settings import HostSettings, LabSettings, Settings

SIMULATOR = Settings(host=HostSettings(url="http://127.0.0.1:8080"))
LIVE = Settings(host=HostSettings(url="https://api.viopay.io"))
LAB = Settings(host=HostSettings(url="https://api.viopay.io"), lab=LabSettings(clear_card_data_on_live_host=True))
TEST_PAN, SOME_PAN = "4111111111111111", "4000001234567899"

CHECKS = [guard.check_card, guard.check_pin]


@pytest.mark.parametrize("check", CHECKS)
def test_a_simulator_takes_anything(check):
    check(SIMULATOR, SOME_PAN)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("pan", [TEST_PAN, SOME_PAN])
def test_a_live_host_is_guarded_and_the_setting_is_named(check, pan):
    with pytest.raises(LiveGuardError) as caught:
        check(LIVE, pan)
    assert guard.LAB_SETTING in caught.value.advice
    assert pan not in str(caught.value) + caught.value.advice


@pytest.mark.parametrize("check", CHECKS)
def test_a_laboratory_may_use_published_test_numbers_and_no_other(check):
    check(LAB, TEST_PAN)
    with pytest.raises(LiveGuardError, match="published test cards only") as caught:
        check(LAB, SOME_PAN)
    assert SOME_PAN not in str(caught.value)


def test_a_reader_in_the_clear_asks_nobody_for_a_card_before_a_live_host():
    with pytest.raises(LiveGuardError, match="card data in the clear"):
        guard.check_reader(LIVE, encrypts=False)
    for settings, encrypts in ((LIVE, True), (LAB, False), (SIMULATOR, False)):
        guard.check_reader(settings, encrypts=encrypts)


IN_THE_CLEAR = (
    "acs:///dev/ttyS1",
    "acs:///dev/ttyS1?slot=picc",
    "gemcore:///dev/ttyS1",
    "magstripe:///dev/ttyS1",
    "pcsc://ACS*",
    "pn532:///dev/ttyAMA0",
    "vivopay:///dev/ttyACM0",
    "vivopay:///dev/ttyACM0?mode=contact",
    "vivopay:///dev/ttyACM0?mode=burst",
    "vivopay:///dev/ttyACM0?mode=passthrough",
)


def test_every_driver_is_asked_for_here():
    assert {url.partition(":")[0] for url in IN_THE_CLEAR} == set(DRIVERS)


@pytest.mark.parametrize("url", IN_THE_CLEAR)
def test_which_readers_are_for_the_lab(url):
    with pytest.raises(LiveGuardError, match="card data in the clear") as caught:
        guard.check_reader(LIVE, encrypts=open_reader(url).capabilities.encrypts)
    assert "Use a reader that encrypts" in caught.value.advice


@pytest.mark.parametrize("mode", ["activate", "contact"])
def test_which_readers_may_take_live_payments(mode):
    reader = open_reader(f"vivopay:///dev/ttyACM0?mode={mode}&encrypts=yes")
    guard.check_reader(LIVE, encrypts=reader.capabilities.encrypts)


@pytest.mark.parametrize("entry", ["tap", "insert", "swipe"])
def test_a_reader_without_a_line_is_none_of_them(entry):
    reader = DirectReader(parse_address(f"sim://visa-credit?entry={entry}"))
    with pytest.raises(LiveGuardError):
        guard.check_reader(LIVE, encrypts=reader.capabilities.encrypts)


def test_a_pin_key_is_kept_in_software_for_a_simulator_or_a_laboratory_only():
    assert guard.not_in_software(LIVE) == {Role.TPK}
    assert not guard.not_in_software(SIMULATOR)
    assert not guard.not_in_software(LAB)


def test_the_published_numbers_are_card_numbers():
    assert all(luhn_digit(pan) for pan in guard.TEST_PANS)


def test_the_simulators_cards_are_among_them():
    assert {card.pan for card in CARDS.values()} <= guard.TEST_PANS
    chips = {card_file(name).track2 for name in names()} - {None}
    assert chips
    assert {track2.pan for track2 in chips} <= guard.TEST_PANS
