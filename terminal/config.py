"""What the host tells a terminal to be: its configuration and its terminal parameters.

The key names are our assumption (A): the vendor documents what the two hold, not how it is spelt. They stand
here and nowhere else. Fields that we do not know are let through, so that a host may add to them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from terminal.errors import HostAnswerInvalid

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


def parse_config(plaintext: bytes) -> Config:
    """The configuration; raises HostAnswerInvalid naming the field."""
    return _parse("pos/config", plaintext, Config)


def parse_parameters(plaintext: bytes) -> Parameters:
    """The terminal parameters; raises HostAnswerInvalid naming the field."""
    return _parse("pos/terminal-parameters", plaintext, Parameters)


def _parse(call: str, plaintext: bytes, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(plaintext, type=wanted)
    except msgspec.ValidationError as error:
        problem, _, field = str(error).partition(" - at ")
        raise HostAnswerInvalid(call, field.strip("`$.") or "the document", problem) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HostAnswerInvalid(call, "the document", "it is not JSON") from None
