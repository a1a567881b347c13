"""What becomes of a charge, by the last two digits of its amount: the simulator's habit, as one literal table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Outcome:
    """The issuer's answer. ``response_code`` is ISO 8583 field 39."""

    status: Literal["approved", "declined"]
    response_code: str
    message: str = ""
    half: bool = False
    """Approved in part: half of what was asked."""
    pending: bool = False
    """Pending first (09), then approved (00)."""
    refund_fails: bool = False
    """A refund of it is accepted, and fails later."""
    slow: bool = False
    """The answer is held back."""


APPROVED = Outcome("approved", "00")

BY_LAST_DIGITS: dict[int, Outcome] = {
    1: Outcome("declined", "01", "Refer to issuer"),
    5: Outcome("declined", "05", "Do not honour"),
    14: Outcome("declined", "14", "Invalid card number"),
    41: Outcome("declined", "41", "Lost card"),
    43: Outcome("declined", "43", "Stolen card"),
    51: Outcome("declined", "51", "Insufficient funds"),
    54: Outcome("declined", "54", "Expired card"),
    55: Outcome("declined", "55", "Wrong PIN"),
    61: Outcome("declined", "61", "Above the amount limit"),
    65: Outcome("declined", "65", "PIN or chip needed"),
    91: Outcome("declined", "91", "Issuer unavailable"),
    30: Outcome("approved", "10", "Approved in part", half=True),
    40: Outcome("approved", "00", pending=True),
    45: Outcome("approved", "00", refund_fails=True),
    8: Outcome("approved", "00", slow=True),
}

PENDING_RESPONSE_CODE = "09"


def outcome(minor: int) -> Outcome:
    """The outcome of an amount in minor units."""
    return BY_LAST_DIGITS.get(minor % 100, APPROVED)


NETWORKS: tuple[tuple[int, int, str], ...] = (
    # first and last of the first four digits (ISO 7812 issuer ranges, as the schemes publish them)
    (2221, 2720, "mastercard"),
    (3000, 3059, "diners"),
    (3400, 3499, "amex"),
    (3528, 3589, "jcb"),
    (3600, 3699, "diners"),
    (3700, 3799, "amex"),
    (3800, 3999, "diners"),
    (4000, 4999, "visa"),
    (5000, 5099, "maestro"),
    (5100, 5599, "mastercard"),
    (5600, 5899, "maestro"),
    (6011, 6011, "discover"),
    (6200, 6299, "unionpay"),
    (6440, 6599, "discover"),
    (6300, 6999, "maestro"),
)


def network(digits: str) -> str:
    """The card network of a PAN, by its first four digits; ``"unknown"`` where they are not known."""
    first = digits[:4]
    if len(first) == 4 and first.isascii() and first.isdigit():
        for low, high, name in NETWORKS:
            if low <= int(first) <= high:
                return name
    return "unknown"
