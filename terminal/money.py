"""An amount: minor units and a currency (ISO 4217). Never a float."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from terminal.errors import AmountError

MAX_MINOR_UNITS = 999_999_999_999
"""Twelve digits: ISO 8583 field 4 and EMV tag 9F02 hold no more."""


@cache
def exponent(currency: str) -> int:
    """How many decimals a currency has (2 for EUR, 0 for JPY, 3 for KWD), from the ISO 4217 list.

    Raises AmountError for a code that is not a currency one can pay in.
    """
    from iso4217 import Currency  # 50 ms: only where money is handled

    try:
        decimals = Currency(currency).exponent
    except ValueError:
        decimals = None
    if decimals is None:
        raise AmountError(f"{currency!r} is not an ISO 4217 currency that one can pay in")
    return decimals


def number(currency: str) -> int:
    """The number of a currency that an amount may be in (978 for EUR), from the ISO 4217 list."""
    from iso4217 import Currency

    return int(Currency(currency).number)


@dataclass(frozen=True, slots=True)
class Amount:
    """``Amount(1250, "EUR")`` is EUR 12.50. Above zero, at most twelve digits.

    Raises AmountError otherwise.
    """

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise AmountError(f"an amount is an integer in minor units, not a {type(self.minor).__name__}")
        exponent(self.currency)
        if self.minor <= 0:
            raise AmountError(f"an amount of {self.minor} {self.currency}: it must be above zero")
        if self.minor > MAX_MINOR_UNITS:
            raise AmountError(
                f"an amount of more than {MAX_MINOR_UNITS} minor units does not fit a payment message"
            )

    def __str__(self) -> str:
        decimals = exponent(self.currency)
        if not decimals:
            return f"{self.currency} {self.minor}"
        whole, rest = divmod(self.minor, 10**decimals)
        return f"{self.currency} {whole}.{rest:0{decimals}}"

    @classmethod
    def parse(cls, text: str, currency: str) -> Amount:
        """``parse("12.50", "EUR")``: decimals as the currency has them; raises AmountError."""
        whole, dot, rest = text.partition(".")
        decimals = exponent(currency)
        digits = whole + rest.ljust(decimals, "0")
        fits = len(rest) <= decimals and (bool(rest) == bool(dot))
        if not (fits and whole and digits.isascii() and digits.isdigit() and len(digits) <= 15):
            raise AmountError(f"{text!r} is not an amount in {currency}: write it like {_example(decimals)}")
        return cls(int(digits), currency)


def _example(decimals: int) -> str:
    return "12" if not decimals else "12." + "50".ljust(decimals, "0")[:decimals]
