"""Cards as files: those of the package, and what is wrong with those of other people."""

from __future__ import annotations

import pytest

from hw.atr import parse_atr
from hw.card import EntryMode
from hw.errors import CardError
from hw.pan import check_pan
from hw.stripe import TRACK_2, play
from sim.card import CardFileError, card_file, inserted, names, stripe_of, tapped
from terminal import guard
from terminal.emv.read import read
from tests.terminal.emv.asked import TOLD, run

ONE = """
about = "one"
atr = "3B 60 00 00"
[[contact]]
aid = "A0000000031010"
label = "VISA"
options = { 82 = "1800" }
[contact.records.1-1]
57 = "4761739001010119D2812201"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        card_file.cache_clear()
        return str(path)

    yield write
    card_file.cache_clear()


def test_the_cards_of_the_package_are_named_by_what_they_are_for():
    assert {"visa-credit", "visa-debit", "mastercard-credit", "mastercard-debit", "maestro", "amex", "jcb"} <= set(
        names()
    )
    assert {"blocked", "garbled", "not-for-payment", "see-phone"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_each_is_a_published_test_card_and_says_what_it_is_for(name):
    card = card_file(name)
    assert card.about[0].isupper()
    if card.track2 is not None:
        check_pan(card.track2.pan)
        assert card.track2.pan in guard.TEST_PANS
        assert card.track2.pan not in repr(inserted(name) if card.atr else tapped(name))
        assert card.masked_pan.endswith(card.track2.pan[-4:])
    if card.atr:
        assert parse_atr(inserted(name).atr).protocols[0] in (0, 1)
    assert len(tapped(name).uid) in (4, 7)
    assert tapped(name).ats


def test_both_protocols_are_among_them():
    spoken = {parse_atr(inserted(name).atr).protocols[0] for name in ("visa-credit", "mastercard-credit")}
    assert spoken == {0, 1}


def test_numbers_of_cards_are_their_own():
    uids = [tapped(name).uid for name in names()]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("name", ["visa-credit", "maestro", "amex", "mastercard-debit"])
def test_the_stripe_is_that_of_the_chip(name):
    card = card_file(name)
    stripe = stripe_of(card)
    track2 = play(TRACK_2, stripe.tracks[2])
    assert card.track2 is not None
    assert track2.startswith(f"{card.track2.pan}={card.track2.expiry}{card.track2.rest[:3]}")


def test_a_card_without_a_number_has_no_stripe():
    with pytest.raises(CardFileError, match="no stripe"):
        stripe_of(card_file("not-for-payment"))


def test_a_card_of_one_s_own(write):
    path = write(ONE)
    assert card_file(path).name == "mine"
    assert inserted(path).atr.hex() == "3b600000"
    with pytest.raises(CardFileError, match="no antenna"):
        tapped(path)
    with pytest.raises(CardFileError, match="no contacts"):
        inserted("see-phone")


@pytest.mark.parametrize(
    "objects",
    [
        '57 = "4761739001010118D2812201"',  # its check digit
        '57 = "4761739001010119D2813201"',
        '57 = ""',
        '5A = "4761739001010119"',  # no date
        '5A = "4761739001010119"\n5F24 = ""',
        '5A = "4761739001010119"\n5F24 = "281231"\n5F30 = "0DAB"',
    ],
)
def test_a_card_whose_number_is_none_can_be_presented_and_is_refused(write, objects):
    path = write(ONE.replace('57 = "4761739001010119D2812201"', objects))
    card = inserted(path)
    assert (card_file(path).track2, card.masked_pan) == (None, "")
    with pytest.raises(CardFileError, match="no stripe"):
        stripe_of(card_file(path))
    with pytest.raises(CardError):
        run(read(EntryMode.CHIP, TOLD), card.transmit)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(CardFileError, match=r"no card named 'visa' \(there are: amex, .*visa-credit"):
        card_file("visa")
    with pytest.raises(CardFileError, match="No such file"):
        card_file("/nowhere/x.toml")


@pytest.mark.parametrize(
    ("was", "becomes", "why"),
    [
        ('about = "one"', "", "about"),
        ('label = "VISA"', 'label = "VISA"\ncolour = "blue"', "colour"),
        ('aid = "A0000000031010"', 'aid = "A000000003101"', "aid"),
        ("1-1", "1", "records"),
        ("1-1", "31-1", "no record 31-1"),
        ("1-1", "1-0", "no record 1-0"),
        ('"VISA"', '"VIS\u00c4"', "label"),
        ("options", "format = 1\noptions", None),
        ("82 =", "83 =", None),
        ('options = { 82 = "1800" }', 'format = 1\noptions = { 83 = "1800" }', "format 1"),
        ("57 =", "5 =", "records"),
        ("57 =", "573F =", None),
        ("57 =", '5A = "' + "00" * 300 + '"\n57 =', "does not fit"),
        ("label", 'pdol = "9F02"\nlabel', "breaks off"),
        ("label", 'pdol = "9F0281FF 9F0281FF"\nlabel', "PDOL"),
        ("about", "about = ", "mine"),
        ("about", "\x00", "mine"),
    ],
)
def test_a_file_that_is_none_names_itself_and_what_is_wrong(write, was, becomes, why):
    path = write(ONE.replace(was, becomes, 1))
    if why is None:
        assert card_file(path)
        return
    with pytest.raises(CardFileError, match=why) as caught:
        card_file(path)
    assert str(caught.value).startswith("mine")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * 200_000])
def test_nor_are_bytes_or_far_too_many_of_them(write, data):
    with pytest.raises(CardFileError):
        card_file(write(data))
