"""What the host tells a terminal to be: its configuration and its terminal parameters.

The key names are our assumption (A): the vendor documents what the two hold, not how it is spelt. They stand
here and nowhere else. Fields that we do not know are let through, so that a host may add to them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from terminal.errors import AmountError, HostAnswerInvalid
from terminal.money import Amount

INTERVAL = range(1, 604_801)
"""Seconds between two heartbeats, or two looks for updates: a second to a week."""
_AMOUNT_DIGITS = 12
"""As in an ISO 8583 amount."""
AID_BYTES = range(5, 17)
"""Bytes of an application identifier (ISO/IEC 7816-4, section 12.2.3)."""
EMV_SIZES = {"terminal_type": 1, "terminal_capabilities": 3, "additional_capabilities": 5}
"""Bytes of each EMV setting that is no list; it may be left out, too."""

T = TypeVar("T")


class TerminalIds(msgspec.Struct, frozen=True):
    """Which terminal this configuration is for."""

    terminal_id: str
    device_id: str


class Merchant(msgspec.Struct, frozen=True):
    """Who is paid. ``merchant_key`` is the merchant's secret and stays out of every repr."""

    merchant_id: str
    name: str
    merchant_key: str = ""
    category_code: str = ""
    tip_info: dict[str, Any] = {}
    tax_info: dict[str, Any] = {}
    surcharge_info: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Merchant(merchant_id={self.merchant_id!r}, name={self.name!r})"


class Location(msgspec.Struct, frozen=True):
    """Where the terminal stands: IANA time zone, ISO 3166 country, ISO 4217 currency."""

    name: str = ""
    address: dict[str, Any] = {}
    timezone: str = "UTC"
    country: str = ""
    currency: str = ""


class Emv(msgspec.Struct, frozen=True):
    """EMV settings, hex as in tags 9F33, 9F40 and 9F35."""

    aids: tuple[str, ...] = ()
    terminal_capabilities: str = ""
    additional_capabilities: str = ""
    terminal_type: str = ""


class Offline(msgspec.Struct, frozen=True):
    """What may be approved without the host; amounts in minor units as strings of digits."""

    allowed: bool = False
    max_amount: str = "0"
    max_total: str = "0"
    max_count: int = 0
    max_age_sec: int = 0


class Security(msgspec.Struct, frozen=True):
    """Cardholder verification and fallback rules; limits in minor units as strings of digits."""

    pin_required: bool = False
    contactless_limit: str = "0"
    cvm_limit: str = "0"
    fallback_allowed: bool = False
    offline: Offline = Offline()


class Intervals(msgspec.Struct, frozen=True):
    """How often the terminal reports and looks for updates, in seconds."""

    heartbeat_sec: int = 60
    update_check_sec: int = 3600


class Config(msgspec.Struct, frozen=True):
    """The answer of ``pos/config``, opened."""

    terminal: TerminalIds
    merchant: Merchant
    location: Location = Location()
    emv: Emv = Emv()
    security: Security = Security()
    branding: dict[str, Any] = {}
    intervals: Intervals = Intervals()


class Parameters(msgspec.Struct, frozen=True):
    """The answer of ``pos/terminal-parameters``, opened: what the EMV kernels need."""

    version: str
    aids: tuple[dict[str, Any], ...]
    capks: tuple[dict[str, Any], ...]
    acquirers: tuple[dict[str, Any], ...] = ()
    contact: dict[str, Any] = {}
    contactless: dict[str, Any] = {}


def floor_limit(parameters: Parameters, aid: bytes) -> int | None:
    """The floor limit of a card's application, in minor units of the configuration's currency; None without one.

    That ``aids[].floor_limit`` is a string of digits, in minor units as all money of the protocol, is our
    assumption (A). The entry is the one whose ``aid`` is the application's, else the longest that it begins with
    and that has ``partial_selection`` (EMV 4.3 Book 1, section 12.3.1). What is written otherwise is no limit.
    """
    found, length = None, -1
    for entry in parameters.aids:
        try:
            name = bytes.fromhex(str(entry.get("aid")))
        except ValueError:
            continue
        fits = name == aid or (entry.get("partial_selection") is True and aid.startswith(name))
        if fits and len(name) in AID_BYTES and len(name) > length:
            found, length = entry.get("floor_limit"), len(name)
    return int(found) if isinstance(found, str) and is_amount(found) else None


def is_amount(text: str) -> bool:
    """Whether it is money as the configuration writes it: minor units, at most twelve digits."""
    return text.isascii() and text.isdigit() and len(text) <= _AMOUNT_DIGITS


def parse_config(plaintext: bytes) -> Config:
    """The configuration; raises HostAnswerInvalid naming the field."""
    return _parse("pos/config", plaintext, Config)


def parse_parameters(plaintext: bytes) -> Parameters:
    """The terminal parameters; raises HostAnswerInvalid naming the field."""
    return _parse("pos/terminal-parameters", plaintext, Parameters)


def check_config(config: Config) -> None:
    """Raise HostAnswerInvalid, naming the field, unless the numbers of a configuration make sense.

    Amounts are minor units as digits, the currency is one of ISO 4217 or left out, and the intervals are ones that
    neither flood a host nor let a terminal fall silent.
    """

    def refuse(field: str, problem: str) -> None:
        raise HostAnswerInvalid("pos/config", field, problem)

    security, currency = config.security, config.location.currency
    for name, amount in (
        ("contactless_limit", security.contactless_limit),
        ("cvm_limit", security.cvm_limit),
        ("offline.max_amount", security.offline.max_amount),
        ("offline.max_total", security.offline.max_total),
    ):
        if not is_amount(amount):
            refuse(f"security.{name}", "it is not an amount in minor units")
    for name, count in (("max_count", security.offline.max_count), ("max_age_sec", security.offline.max_age_sec)):
        if count < 0:
            refuse(f"security.offline.{name}", "it is below zero")
    if currency:
        try:
            Amount(1, currency)
        except AmountError:
            refuse("location.currency", "it is not a currency of ISO 4217")
    aids(config)
    for name in EMV_SIZES:
        emv_bytes(config, name)
    for name, seconds in (
        ("heartbeat_sec", config.intervals.heartbeat_sec),
        ("update_check_sec", config.intervals.update_check_sec),
    ):
        if seconds not in INTERVAL:
            refuse(f"intervals.{name}", f"it is not between {INTERVAL.start} and {INTERVAL.stop - 1} seconds")


def emv_bytes(config: Config, name: str) -> bytes:
    """The EMV setting of this name (of ``EMV_SIZES``), empty where it is left out; raises HostAnswerInvalid."""
    text: str = getattr(config.emv, name)
    return _hex(name, text, range(EMV_SIZES[name], EMV_SIZES[name] + 1)) if text else b""


def aids(config: Config) -> tuple[bytes, ...]:
    """The application identifiers that are taken; raises HostAnswerInvalid."""
    return tuple(_hex("aids", aid, AID_BYTES) for aid in config.emv.aids)


def _hex(name: str, text: str, sizes: range) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) not in sizes:
        raise HostAnswerInvalid("pos/config", f"emv.{name}", "it is no hex, or too short or too long")
    return data


def differing(before: Config, after: Config) -> tuple[str, ...]:
    """The names of the parts that differ between two configurations."""
    return tuple(name for name in Config.__struct_fields__ if getattr(before, name) != getattr(after, name))


def _parse(call: str, plaintext: bytes, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(plaintext, type=wanted)
    except msgspec.ValidationError as error:
        problem, _, field = str(error).partition(" - at ")
        raise HostAnswerInvalid(call, field.strip("`$.") or "the document", problem) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HostAnswerInvalid(call, "the document", "it is not JSON") from None
