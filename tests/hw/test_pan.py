"""Card numbers and expiry dates. The PANs are published test numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.card import EntryMode, ManualCard, StripeCard
from hw.errors import CardError
from hw.pan import check_expiry, check_pan, luhn_digit, mask_pan, passes_luhn

# ISO/IEC 7812-1 annex B works 7992739871 -> 3, the example that every description of the algorithm repeats.
GOOD = (
    "79927398713",
    "4761739001010119",
    "4111111111111111",
    "5413330089600010",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "6304939304310009610",
)


@pytest.mark.parametrize("pan", GOOD)
def test_the_published_numbers_pass_their_check(pan: str) -> None:
    assert passes_luhn(pan)
    assert luhn_digit(pan[:-1]) == pan[-1]


@given(payload=st.text("0123456789", min_size=11, max_size=18), data=st.data())
def test_one_wrong_digit_is_always_found(payload: str, data: st.DataObject) -> None:
    pan = payload + luhn_digit(payload)
    check_pan(pan)
    place = data.draw(st.integers(0, len(pan) - 1))
    wrong = data.draw(st.sampled_from("0123456789".replace(pan[place], "")))
    with pytest.raises(CardError, match="Luhn"):
        check_pan(pan[:place] + wrong + pan[place + 1 :])


@pytest.mark.parametrize(
    ("pan", "why"),
    [
        ("", "something else than digits"),
        ("4111 1111 1111 1111", "something else than digits"),
        ("٤١١١١١١١١١١١١١١١", "something else than digits"),
        ("79927398713", "12 to 19 digits, this one 11"),
        ("0" * 20, "12 to 19 digits, this one 20"),
        ("4111111111111112", "fails its Luhn check"),
    ],
)
def test_what_is_no_pan_says_why_and_what_to_do(pan: str, why: str) -> None:
    with pytest.raises(CardError, match=why) as caught:
        check_pan(pan)
    assert "type it again" in caught.value.advice


@pytest.mark.parametrize("expiry", ["2801", "2812", "0012", "9909"])
def test_months_from_january_to_december(expiry: str) -> None:
    check_expiry(expiry)


@pytest.mark.parametrize("expiry", ["", "281", "28120", "2800", "2813", "2899", "12/28", "28.2", "٢٨١٢", " 812"])
def test_what_is_no_expiry_date(expiry: str) -> None:
    with pytest.raises(CardError, match="YYMM"):
        check_expiry(expiry)


@pytest.mark.parametrize(
    ("pan", "shown"),
    [
        ("4761739001010119", "476173******0119"),
        ("378282246310005", "378282*****0005"),
        ("6304939304310009610", "630493*********9610"),
        ("1234567890123", "123456***0123"),
        ("123456789012", "********9012"),
        ("12345678", "****5678"),
        ("1234567", "*******"),
        ("", ""),
    ],
)
def test_the_mask_shows_six_and_four_at_most(pan: str, shown: str) -> None:
    assert mask_pan(pan) == shown


@given(st.text(max_size=40))
def test_the_mask_keeps_the_length_and_hides_something_of_everything(text: str) -> None:
    masked = mask_pan(text)
    assert len(masked) == len(text)
    assert masked.count("*") >= min(len(text), 3)


def test_a_typed_card_is_checked_as_it_is_made() -> None:
    card = ManualCard("4761739001010119", "2812")
    assert (card.entry_mode, card.masked_pan) == (EntryMode.MANUAL, "476173******0119")
    with pytest.raises(CardError):
        ManualCard("4761739001010118", "2812")
    with pytest.raises(CardError):
        ManualCard("4761739001010119", "2813")


@pytest.mark.parametrize(
    ("track2", "tag57"),
    [  # an even number of nibbles, and an odd one, which is padded (EMV Book 3, annex A, tag 57)
        ("4761739001010119=28122010000", "4761739001010119D28122010000"),
        ("4761739001010119=281220100000", "4761739001010119D281220100000F"),
    ],
)
def test_track_2_equivalent_data_is_packed_with_a_d_and_padded_with_an_f(track2: str, tag57: str) -> None:
    card = StripeCard("4761739001010119", "2812", "201", track2)
    assert card.track2_equivalent() == bytes.fromhex(tag57)
    assert card.entry_mode == EntryMode.SWIPE


def test_no_card_shows_its_data() -> None:
    cards = [
        StripeCard("4761739001010119", "2812", "201", "4761739001010119=2812201", "B476", "01", "DOE/JOHN"),
        ManualCard("4761739001010119", "2812"),
    ]
    shown = " ".join(f"{card!r} {card} {[card]!r} {card!s:>5} %r" % card for card in cards)
    assert "476173******0119" in shown
    for secret in ("4761739001010119", "2812", "DOE", "B476"):
        assert secret not in shown
