"""The primary account number and the expiry date: what they may look like, and how much of them may be shown."""

from __future__ import annotations

from hw.errors import CardError

MIN_PAN_DIGITS = 12
"""ISO/IEC 7812-1 allows as few as 8, but no payment scheme issues fewer than 12 (Maestro)."""

MAX_PAN_DIGITS = 19
"""ISO/IEC 7812-1, ISO/IEC 7813 (tracks 1 and 2) and EMV tag 5A alike."""

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # twice a digit, and the two digits of that added

_RETYPE = "Check what is printed on the card and type it again."


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def luhn_digit(payload: str) -> str:
    """The check digit that follows these decimal digits (ISO/IEC 7812-1 annex B)."""
    total = sum(_DOUBLED[int(d)] if place % 2 == 0 else int(d) for place, d in enumerate(reversed(payload)))
    return str(-total % 10)


def passes_luhn(pan: str) -> bool:
    """Whether the last digit is the check digit of those before it. False for what is not digits."""
    return _is_digits(pan) and luhn_digit(pan[:-1]) == pan[-1]


def check_pan(pan: str) -> None:
    """Raise CardError unless this is 12 to 19 decimal digits that end in their check digit."""
    if not _is_digits(pan):
        raise CardError("the card number holds something else than digits", advice=_RETYPE)
    if not MIN_PAN_DIGITS <= len(pan) <= MAX_PAN_DIGITS:
        raise CardError(
            f"a card number has {MIN_PAN_DIGITS} to {MAX_PAN_DIGITS} digits, this one {len(pan)}", advice=_RETYPE
        )
    if not passes_luhn(pan):
        raise CardError("the card number fails its Luhn check", advice=_RETYPE)


def check_expiry(expiry: str) -> None:
    """Raise CardError unless this is YYMM, four digits with a month from 01 to 12 (ISO/IEC 7813).

    Whether the card has expired is not decided here: the issuer may honour it, and the host says so.
    """
    if len(expiry) != 4 or not _is_digits(expiry):
        raise CardError("an expiry date is four digits, YYMM", advice=_RETYPE)
    if not "01" <= expiry[2:] <= "12":
        raise CardError(f"the expiry date (YYMM) has no month {expiry[2:]}", advice=_RETYPE)


def mask_pan(pan: str) -> str:
    """``476173******0119``: at most the first six and the last four, as PCI DSS 3.4 allows to show.

    Of fewer than 13 characters only the last four are shown, and of fewer than 8 none: six and four would
    leave so little hidden that the check digit gives it away.
    """
    if len(pan) < 8:
        return "*" * len(pan)
    head = pan[:6] if len(pan) >= 13 else ""
    return head + "*" * (len(pan) - len(head) - 4) + pan[-4:]
