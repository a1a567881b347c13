from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.errors import AmountError
from terminal.money import MAX_MINOR_UNITS, Amount, exponent

CURRENCIES = st.sampled_from(["EUR", "JPY", "KWD", "USD", "CLF"])


# ISO 4217 amendments list, table A.1: minor units.
@pytest.mark.parametrize(
    ("currency", "decimals"), [("EUR", 2), ("JPY", 0), ("KWD", 3), ("IQD", 3), ("HUF", 2), ("ISK", 0), ("CLF", 4)]
)
def test_decimals_are_those_of_iso_4217(currency, decimals):
    assert exponent(currency) == decimals


@pytest.mark.parametrize("currency", ["XXY", "eur", "EU", "", "XXX", "XAU", "978"])
def test_what_one_cannot_pay_in_is_refused(currency):
    with pytest.raises(AmountError, match="not an ISO 4217 currency"):
        Amount(100, currency)


@pytest.mark.parametrize("minor", [0, -1, MAX_MINOR_UNITS + 1])
def test_amounts_out_of_range_are_refused(minor):
    with pytest.raises(AmountError):
        Amount(minor, "EUR")


@pytest.mark.parametrize("minor", [12.5, "12", True, None])
def test_only_an_integer_is_an_amount(minor):
    with pytest.raises(AmountError, match="integer in minor units"):
        Amount(minor, "EUR")


def test_the_largest_amount_fits():
    assert Amount(MAX_MINOR_UNITS, "EUR").minor == MAX_MINOR_UNITS


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount(1250, "EUR"), "EUR 12.50"),
        (Amount(5, "EUR"), "EUR 0.05"),
        (Amount(500, "JPY"), "JPY 500"),
        (Amount(1, "KWD"), "KWD 0.001"),
    ],
)
def test_amounts_are_written_with_their_decimals(amount, text):
    assert str(amount) == text


@given(st.integers(1, MAX_MINOR_UNITS), CURRENCIES)
def test_what_is_written_is_read_back(minor, currency):
    amount = Amount(minor, currency)
    assert Amount.parse(str(amount).split()[1], currency) == amount


@pytest.mark.parametrize(
    "text", ["12.505", "12.", ".50", "1,50", "-1", "1e3", "", "12 50", "١٢", "0", "0.00", "9" * 16]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(AmountError):
        Amount.parse(text, "EUR")


def test_fewer_decimals_are_filled_up():
    assert Amount.parse("12.5", "EUR") == Amount(1250, "EUR")
    assert Amount.parse("12", "EUR") == Amount(1200, "EUR")


@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_an_error(text):
    with contextlib.suppress(AmountError):
        assert Amount.parse(text, "EUR").minor > 0
