"""What a person may set, as one validated document: ``settings.toml`` in the terminal's home.

Durations are in seconds, sizes in bytes. An unknown name, a wrong type or a value out of range is a
SettingsError that names the setting.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from terminal import __version__
from terminal.errors import AmountError, SettingsError
from terminal.money import Amount

FILE_NAME = "settings.toml"

# A name or an address, perhaps a port. `urlsplit` takes ::1 for the host of `evil.example[::1]`; others would not.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]+)(:[0-9]*)?")


class HostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the host is reached, and what our assumptions about it are."""

    url: str = "https://api.viopay.io"
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust in place of the system's."""
    pins: tuple[str, ...] = ()
    """Base64 SHA-256 of the SubjectPublicKeyInfo of acceptable server certificates (RFC 7469); empty: any."""
    client_version: str = __version__
    """The version in our User-Agent, which the host holds against its ``min_supported_version``."""
    model: str = "Tillwright"
    connect_timeout: float = 5.0
    read_timeout: float = 15.0
    call_timeout: float = 40.0
    """Seconds for one call with all its retries."""
    attempts: int = 4
    """How often a call is tried where a repeat is safe."""
    signature_scheme: Literal["prefixed", "body"] = "prefixed"
    offers_lookup: bool = True
    """Whether the host answers ``GET /pos/charge``."""
    idempotency_life: float = 86_400.0
    """Seconds that the host remembers an idempotency key: sent again after that, a payment could be made twice."""
    request_life: float = 360.0
    """Seconds after its date in which the host may still take a request: its window of 5 minutes, and 1 ahead."""

    @property
    def loopback(self) -> bool:
        """Whether the host is on this very machine: a simulator."""
        return is_loopback(self.url)


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tolerances for a host's key blocks and KCVs; each is off unless named."""

    tolerate: tuple[str, ...] = ()
    """Names of ``keyblock_header.Tolerance`` and ``policy.Tolerated`` members, lower case."""


class LabSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a laboratory may do that a shop may not."""

    clear_card_data_on_live_host: bool = False
    """Let clear card data, typed PINs and a software TPK through to a host that is not on loopback: then
    only published test PANs are accepted."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything, with the defaults that suit most terminals."""

    host: HostSettings = HostSettings()
    keys: KeySettings = KeySettings()
    lab: LabSettings = LabSettings()
    home: str = ""
    """The folder that the settings came from; a file does not set it."""
    credentials_file: str | None = None
    """A file of at least 32 random bytes that opens the vault of an unattended terminal."""
    reader: str | None = None
    """The reader's URL, as ``magstripe:///dev/ttyUSB0?baud=9600``."""
    card_timeout: float = 60.0
    """How long a charge waits for a card."""
    pairing_poll: float = 4.0
    """Between two polls of the pairing status: the host asks for 3 to 5 seconds."""
    pending_poll: float = 2.0
    pending_wait: float = 15.0
    """How long a charge that the host calls pending is watched before its caller gets a handle."""
    answer_skew: float = 300.0
    """How far the time of an answer may lie from ours before it does not fit the question."""
    shopper_wait: float = 120.0
    """For how long after the till has last asked for a charge the shopper counts as there; then it is undone."""
    confirm_within: float = 180.0
    """For how long a charge that is held waits for the till to confirm it; then it is undone."""
    duplicate_window: float = 300.0
    """A second charge of the same card and amount within this is told: perhaps it is the same sale; 0: never."""
    alarm_after: float = 600.0
    """After this a payment in doubt, or a reversal that was not acknowledged, is told to somebody."""
    acknowledgement: Literal["return", "explicit"] = "return"
    """Whether an outcome that was given back to its caller need not be given again, or must be acknowledged."""
    clock_step: float = 3600.0
    """How far the host may move our clock at once, and back behind what it has confirmed."""
    renew_before: float = 3600.0
    """How long before its end a key set is renewed; at most half of its life."""
    retention_days: int = 0
    """Payments that ended longer ago leave the journal, and only their totals stay; 0: none ever does."""
    max_amounts: dict[str, int] = {}
    """Minor units by currency above which a charge is refused before it starts."""
    parameters_limit: int = 64 * 1024 * 1024
    """Inflated terminal parameters above this are refused."""

    def __post_init__(self) -> None:
        check_url(self.host.url)
        for name, value, low, high in (
            ("host.connect_timeout", self.host.connect_timeout, 0.1, 120),
            ("host.read_timeout", self.host.read_timeout, 0.1, 300),
            ("host.call_timeout", self.host.call_timeout, 0.1, 600),
            ("host.attempts", self.host.attempts, 1, 20),
            ("host.idempotency_life", self.host.idempotency_life, 60, 31_536_000),
            ("host.request_life", self.host.request_life, 60, 86_400),
            ("shopper_wait", self.shopper_wait, 1, 3600),
            ("confirm_within", self.confirm_within, 1, 86_400),
            ("duplicate_window", self.duplicate_window, 0, 86_400),
            ("alarm_after", self.alarm_after, 1, 604_800),
            ("pairing_poll", self.pairing_poll, 3, 5),
            ("pending_poll", self.pending_poll, 0.5, 60),
            ("pending_wait", self.pending_wait, 0, 600),
            ("card_timeout", self.card_timeout, 1, 3600),
            ("answer_skew", self.answer_skew, 1, 86_400),
            ("clock_step", self.clock_step, 60, 1_576_800_000),
            ("renew_before", self.renew_before, 0, 604_800),
            ("parameters_limit", self.parameters_limit, 1024, 1024**3),
        ):
            if not low <= value <= high:
                raise SettingsError(f"{name}: {value} is not between {low} and {high}")
        if self.retention_days and not 7 <= self.retention_days <= 36_500:
            raise SettingsError(f"retention_days: {self.retention_days} is neither 0 nor between 7 and 36500")
        if self.retention_days and self.retention_days * 86_400 < self.host.idempotency_life:
            raise SettingsError("retention_days: payments have to stay for host.idempotency_life at least")
        for currency, limit in self.max_amounts.items():
            try:
                Amount(limit, currency)
            except AmountError as error:
                raise SettingsError(f"max_amounts.{currency}: {error}") from None


@lru_cache(maxsize=8)  # asked of every card
def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    return is_loopback_name(urlsplit(url).hostname or "")


def is_loopback_name(name: str) -> bool:
    """Whether a host is this machine: 127.0.0.0/8, ::1 or the name localhost."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_url(url: str) -> None:
    """Raise SettingsError unless the URL is https, or plain http to this machine."""
    try:
        parts = urlsplit(url)
        named = _AUTHORITY.fullmatch(parts.netloc) is not None and (parts.port or 1) > 0
    except ValueError:
        named = False
        parts = urlsplit("")
    if not named or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        raise SettingsError(f"host.url: {url!r} is not an http or https URL of a host")
    if parts.scheme == "http" and not is_loopback(url):
        raise SettingsError(
            f"host.url: {url!r} is plain http, which is for a simulator on this machine only",
            advice="Write https://.",
        )


def parse(text: bytes | str, source: str = FILE_NAME) -> Settings:
    """The settings in a TOML document; raises SettingsError naming the setting."""
    try:
        return msgspec.toml.decode(text, type=Settings)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}", advice=error.advice) from None
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        advice = 'The names and their values are in docs/operations.md, "Settings".'
        raise SettingsError(f"{source}: {error}", advice=advice) from None


def load(home: Path | str) -> Settings:
    """The settings of a terminal's home; the defaults where it has no file."""
    home = Path(home).expanduser()
    path = home / FILE_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    found = parse(text, str(path))
    if found.home:
        raise SettingsError(f"{path}: home is the folder that this file is in; it cannot be set here")
    return msgspec.structs.replace(found, home=str(home))


def save(home: Path, url: str, credentials_file: str | None, reader: str | None = None) -> None:
    """Write the host's URL (and the others where given) into the settings, and leave the rest as it is."""
    import tomli_w

    path = home / FILE_NAME
    document = tomllib.loads(path.read_text()) if path.exists() else {}
    document.setdefault("host", {})["url"] = url
    if credentials_file:
        document["credentials_file"] = credentials_file
    if reader:
        document["reader"] = reader
    text = tomli_w.dumps(document)
    parse(text, str(path))
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # or a power cut may leave an empty file, which means the default host
    fresh.replace(path)
