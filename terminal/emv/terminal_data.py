"""What a terminal tells a card that asks: about itself, and about what is to be paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from terminal.config import Config, aids, emv_bytes
from terminal.emv.countries import NUMBERS
from terminal.emv.tags import Tag
from terminal.money import Amount, exponent, number

SCHEMES: Final[Mapping[str, str]] = {
    "A0000000031010": "Visa",
    "A0000000032010": "Visa Electron",
    "A0000000032020": "V PAY",
    "A0000000041010": "Mastercard",
    "A0000000042203": "Mastercard US debit",
    "A0000000043060": "Maestro",
    "A00000002501": "American Express",
    "A0000000651010": "JCB",
    "A0000001523010": "Discover and Diners Club",
    "A000000333010101": "UnionPay debit",
    "A000000333010102": "UnionPay credit",
}
"""Application identifiers that are taken where the configuration names none."""

_OWN_AIDS: Final = tuple(bytes.fromhex(aid) for aid in SCHEMES)
_SETTINGS: Final[Mapping[int, str]] = {
    Tag.TERMINAL_TYPE: "terminal_type",
    Tag.CAPABILITIES: "terminal_capabilities",
    Tag.ADDITIONAL_CAPABILITIES: "additional_capabilities",
}

PURCHASE: Final = b"\x00"
"""Transaction type: the first two digits of ISO 8583's processing code."""
QUALIFIERS: Final = bytes.fromhex("22804000")
"""Terminal transaction qualifiers (EMV Contactless Book A, table 5-4): EMV mode and signature; an online cryptogram
is wanted; the consumer's own device may verify."""
UNPREDICTABLE_BYTES: Final = 4

NUMERIC: Final = frozenset(
    (
        Tag.AMOUNT,
        Tag.COUNTRY,
        Tag.CURRENCY,
        Tag.EXPONENT,
        Tag.DATE,
        Tag.TIME,
        Tag.TRANSACTION_TYPE,
        Tag.TERMINAL_TYPE,
    )
)
"""Those of format n: they keep their end, and zeros are put in front (EMV 4.3 Book 3, section 5.4)."""


@dataclass(frozen=True, slots=True)
class TerminalData:
    """The applications that are taken, by how their identifiers begin, and what is told to a card that asks."""

    aids: tuple[bytes, ...]
    objects: Mapping[int, bytes]

    def listed(self, dol: Iterable[tuple[int, int]]) -> bytes:
        """What a data object list asks for, one value after the other, each as long as it is asked for.

        Zeros stand for what is not known here (EMV 4.3 Book 3, section 5.4).
        """
        return b"".join(_sized(tag, self.objects.get(tag, b""), size) for tag, size in dol)


def _sized(tag: int, value: bytes, size: int) -> bytes:
    if tag in NUMERIC:
        return value[-size:].rjust(size, b"\0") if size else b""
    return value[:size].ljust(size, b"\0")


def terminal_data(config: Config | None, amount: Amount, now: datetime, unpredictable: bytes) -> TerminalData:
    """What is told in a sale of ``amount``: ``now`` is aware, ``unpredictable`` are four random bytes.

    Without a configuration, and where that says nothing, the schemes' own identifiers are taken, and what is told
    of the terminal is zeros. Raises HostAnswerInvalid for a configuration whose hex is none.
    """
    there = now.astimezone(_zone(config.location.timezone if config else ""))
    objects: dict[int, bytes] = {
        Tag.AMOUNT: bytes.fromhex(f"{amount.minor:012}"),
        Tag.CURRENCY: bytes.fromhex(f"{number(amount.currency):04}"),
        Tag.EXPONENT: bytes((exponent(amount.currency),)),
        Tag.DATE: bytes.fromhex(f"{there:%y%m%d}"),
        Tag.TIME: bytes.fromhex(f"{there:%H%M%S}"),
        Tag.TRANSACTION_TYPE: PURCHASE,
        Tag.UNPREDICTABLE_NUMBER: unpredictable,
        Tag.TERMINAL_QUALIFIERS: QUALIFIERS,
    }
    if config is None:
        return TerminalData(_OWN_AIDS, objects)
    objects[Tag.COUNTRY] = bytes.fromhex(f"{NUMBERS.get(config.location.country, 0):04}")
    objects |= {tag: emv_bytes(config, name) for tag, name in _SETTINGS.items()}
    return TerminalData(aids(config) or _OWN_AIDS, objects)


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # 10 ms: only where a card asks

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a machine without the world's time zones, or a host that made one up
        return UTC
