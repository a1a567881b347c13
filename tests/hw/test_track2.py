"""Track 2 equivalent data: what makes a card's, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.card import EntryMode, ResultCard, StripeCard
from hw.errors import CardError
from hw.pan import luhn_digit
from hw.track2 import MAX_BYTES, Track2

PANS = st.integers(11, 18).flatmap(
    lambda size: st.text("0123456789", min_size=size, max_size=size).map(lambda digits: digits + luhn_digit(digits))
)
EXPIRIES = st.builds(lambda year, month: f"{year:02}{month:02}", st.integers(0, 99), st.integers(1, 12))


@given(PANS, EXPIRIES, st.text("0123456789", max_size=13))
def test_what_was_encoded_is_decoded(pan, expiry, rest):
    track2 = Track2(pan, expiry, rest)
    assert Track2.decode(track2.encode()) == track2
    assert Track2.decode(track2.encode() + b"\xff") == track2  # more padding than is needed
    assert pan not in repr(track2)


@given(PANS, EXPIRIES, st.text("0123456789", min_size=3, max_size=13))
def test_it_is_that_of_the_stripe(pan, expiry, rest):
    stripe = StripeCard(pan, expiry, rest[:3], f"{pan}={expiry}{rest}")
    assert Track2(pan, expiry, rest).encode() == stripe.track2_equivalent()


@given(st.binary(max_size=25))
def test_any_bytes_are_a_card_s_or_a_card_error(data):
    try:
        card = ResultCard(track2=data, entry_mode=EntryMode.CHIP)
    except CardError:
        return
    assert Track2.decode(card.track2_equivalent()) == Track2.decode(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "not laid out"),
        ("4761739001010119", "not laid out"),
        ("4761739001010119D281", "not laid out"),
        ("4761739001010119D2812A01F", "not laid out"),
        ("4761739001010119D2812FF201", "not laid out"),
        ("4761739001010119DD2812", "not laid out"),
        ("4761739001010118D2812201", "Luhn"),
        ("47617390019D2812201F", "12 to 19 digits"),
        ("4761739001010119D2800201", "no month 00"),
        ("4761739001010119D2812" + "0" * 18, "longer than a track"),
        ("4761739001010119D2812" + "0" * 1001, "not laid out|longer than a track"),
    ],
)
def test_what_is_none_is_refused_without_a_digit_of_it(data, why):
    with pytest.raises(CardError, match=why) as caught:
        Track2.decode(bytes.fromhex(data if len(data) % 2 == 0 else data + "F"))
    assert "4761739" not in str(caught.value)


@pytest.mark.parametrize("rest", ["2a1", " 201", "\u0662\u0660\u0661", "0" * 18])
def test_nor_is_it_made_of_anything_but_a_few_digits(rest):
    with pytest.raises(CardError):
        Track2("4761739001010119", "2812", rest)


def test_the_longest():
    assert len(Track2("4761739001010119", "2812", "0" * 16).encode()) == MAX_BYTES
