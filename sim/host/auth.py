"""Who is calling: one function for each authentication level of the VioPay POS API.

The order of checks is the same for all: what is missing or malformed (400), the client's version (426), whether the
device exists (404) and may call at all (403), and only then its credentials (401). A nonce is taken only from a
request whose signature is right, so that a stranger cannot use up another's.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sim.host.calls import Call
from sim.host.config import HostConfig
from sim.host.hsm import Hsm, LiveKeys
from sim.host.ledger import Ledger, to_ms
from sim.host.refusals import Refusal, Why
from sim.host.registry import Device, Merchant
from terminal.clock import parse_rfc3339
from terminal.crypto.signature import attestation_message, hmac_sha256, parse_header_value, request_message

_DEVICE_ID = re.compile(r"POS-[0-9A-Fa-f]{8}")
_USER_AGENT = re.compile(r"Viopay-POS/(\d{1,6}(?:\.\d{1,6}){0,3})(?:[-+.][0-9A-Za-z.+-]{1,32})? \([^;]+; .+\)")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)")
_OTHER_SIGNATURE = re.compile(r"v\d{1,3}=.+")
_NONCE_LENGTH = range(12, 129)
_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class _Signed:
    """The four headers of a signature, well formed."""

    key_id: str
    timestamp: str
    moment: datetime
    nonce: str
    mac: bytes | None
    """None for a signature of another version, which is well formed and always wrong."""


class Gate:
    """The checks, over what the host knows."""

    def __init__(self, ledger: Ledger, hsm: Hsm, config: HostConfig) -> None:
        self._ledger, self._registry, self._hsm, self._config = ledger, ledger.registry, hsm, config
        self._min_version = _version(config.min_supported_version)

    # --- back office ------------------------------------------------------------------------------------------

    def bearer(self, call: Call, *, initiated: bool) -> tuple[Merchant, str]:
        """Level "Bearer": the merchant and its token. With ``initiated``, ``/session/initiate`` must have been."""
        token = self._authorization(call, "Bearer")
        found = self._registry.token("session", token)
        if found is None or found.expires_at <= to_ms(call.now):
            raise Refusal(Why.CREDENTIALS, "The access token is unknown or has expired.")
        merchant = self._registry.merchant(found.owner)
        if merchant is None:
            raise Refusal(Why.CREDENTIALS, "The access token is unknown or has expired.")
        if initiated and not found.initiated:
            raise Refusal(Why.CONFLICT, "POST /session/initiate comes first.")
        return merchant, token

    # --- the device -------------------------------------------------------------------------------------------

    def activation(self, call: Call) -> Device:
        """Level "POS activation": the device as it names itself. An unclaimed one may call, to pair again."""
        device_id = self._device_id(call)
        self._client(call)
        return self._device(call, self._registry.device(device_id), device_id)

    def attestation(self, call: Call) -> Device:
        """Level "POS attestation": the device to which the token is bound."""
        token = self._authorization(call, "Attestation")
        device_id = self._device_id(call)
        self._version_of_ours(call)
        found = self._registry.token("attestation", token)
        if found is None or found.expires_at <= to_ms(call.now):
            self._blocked(call, self._registry.device(device_id))
            raise Refusal(Why.CREDENTIALS, "The attestation token is unknown or has expired.")
        if found.owner != device_id:
            raise Refusal(Why.CREDENTIALS, "The attestation token is bound to another device.")
        device = self._device(call, self._registry.device(device_id), device_id)
        self._blocked(call, device)
        return device

    def attest(self, call: Call) -> Device:
        """The activation level with a signature under the device's identity secret: ``POST /pos/attest``."""
        signed = self._signed(call)
        device = self.activation(call)
        self._window(signed, call.now)
        if device.identity_revoked or not hmac.compare_digest(signed.key_id, device.identity_key_id):
            raise Refusal(Why.CREDENTIALS, "The key id is unknown or revoked.")
        identity = self._hsm.open_device(device.device_id, device.sealed).identity
        message = attestation_message(device.device_id, signed.key_id, signed.timestamp, signed.nonce)
        self._prove(signed, hmac_sha256(identity, message))
        self._take_nonce(call, device, signed)
        return device

    def payment(self, call: Call) -> tuple[Device, LiveKeys]:
        """Level "POS HMAC": the activated terminal, and the key set by whose MAC key it signed."""
        terminal_id = self._id(call, "x-terminal-id")
        signed = self._signed(call)
        self._client(call)
        device = self._device(call, self._registry.terminal(terminal_id), terminal_id)
        self._blocked(call, device)
        self._window(signed, call.now)
        row = self._registry.key_set_by_mac(device.device_id, signed.key_id)
        if row is None or row.state == "revoked":
            raise Refusal(Why.CREDENTIALS, "The key id is unknown or revoked.")
        keys = self._hsm.open_key_set(row.key_set_id, row.sealed)
        message = request_message(
            self._config.signature_scheme, terminal_id, signed.key_id, signed.timestamp, signed.nonce, call.body
        )
        self._prove(signed, hmac_sha256(keys.mac, message))
        if not row.usable(to_ms(call.now)):
            raise Refusal(Why.SUPERSEDED, "The key set is superseded: take new keys.")
        self._take_nonce(call, device, signed)
        if device.activated_at is None:
            raise Refusal(Why.CONFLICT, "The device is not activated.")
        return device, keys

    # --- parts ------------------------------------------------------------------------------------------------

    def _header(self, call: Call, name: str) -> str:
        if name in call.repeated:
            raise Refusal(Why.MALFORMED, f"The header {name} came more than once.", header=name)
        value = call.headers.get(name, "")
        if not value:
            raise Refusal(Why.MALFORMED, f"The header {name} is missing.", header=name)
        if len(value) > self._config.max_header or not (value.isascii() and value.isprintable()):
            raise self._malformed(name)
        return value

    @staticmethod
    def _malformed(name: str) -> Refusal:
        return Refusal(Why.MALFORMED, f"The header {name} is malformed.", header=name)

    def _id(self, call: Call, name: str) -> str:
        value = self._header(call, name)
        if len(value) > _ID_LENGTH or " " in value:
            raise self._malformed(name)
        return value

    def _device_id(self, call: Call) -> str:
        value = self._id(call, "x-device-id")
        if not _DEVICE_ID.fullmatch(value):
            raise self._malformed("x-device-id")
        return value

    def _authorization(self, call: Call, scheme: str) -> str:
        """The token behind the scheme; another scheme is 401."""
        value = self._header(call, "authorization")
        given, blank, token = value.partition(" ")
        if not blank or not token or " " in token:
            raise self._malformed("authorization")
        if given.lower() != scheme.lower():
            raise Refusal(Why.CREDENTIALS, f"The authorization scheme here is {scheme}.")
        return token

    def _client(self, call: Call) -> None:
        """User-Agent and X-Client-Type, where a level asks for them."""
        if not _USER_AGENT.fullmatch(self._header(call, "user-agent")):
            raise self._malformed("user-agent")
        if self._header(call, "x-client-type") != "pos":
            raise self._malformed("x-client-type")
        self._version_of_ours(call)

    def _version_of_ours(self, call: Call) -> None:
        """426 for a User-Agent of the protocol's form with a version that is too low."""
        form = _USER_AGENT.fullmatch(call.headers.get("user-agent", ""))
        if form and _version(form[1]) < self._min_version:
            raise Refusal(
                Why.TOO_OLD,
                f"Version {form[1]} is below {self._config.min_supported_version}: update the terminal.",
                min_supported_version=self._config.min_supported_version,
            )

    def _device(self, call: Call, device: Device | None, name: str) -> Device:
        if device is None:
            raise Refusal(Why.UNKNOWN, f"{name} is unknown.")
        call.device_id, call.terminal_id = device.device_id, device.terminal_id
        if device.revoked:
            raise Refusal(Why.BLOCKED, f"{name} is revoked.")
        return device

    def _blocked(self, call: Call, device: Device | None) -> None:
        if device is not None and (device.revoked or device.unclaimed):
            call.device_id, call.terminal_id = device.device_id, device.terminal_id
            word = "revoked" if device.revoked else "unclaimed"
            raise Refusal(Why.BLOCKED, f"{device.device_id} is {word}.")

    def _signed(self, call: Call) -> _Signed:
        key_id = self._id(call, "x-key-id")
        timestamp = self._header(call, "x-timestamp")
        nonce = self._header(call, "x-nonce")
        signature = self._header(call, "x-signature")
        try:
            if not _TIMESTAMP.fullmatch(timestamp):
                raise ValueError
            moment = parse_rfc3339(timestamp)
        except ValueError:
            raise self._malformed("x-timestamp") from None
        if len(nonce) not in _NONCE_LENGTH or not nonce.isalnum():
            raise self._malformed("x-nonce")
        try:
            mac = parse_header_value(signature)
        except ValueError:
            if signature.startswith("v1=") or not _OTHER_SIGNATURE.fullmatch(signature):
                raise self._malformed("x-signature") from None
            mac = None
        return _Signed(key_id, timestamp, moment, nonce, mac)

    def _window(self, signed: _Signed, now: datetime) -> None:
        """The time window, in the whole seconds that a timestamp has."""
        age = now.replace(microsecond=0) - signed.moment
        ahead, past = (
            timedelta(seconds=self._config.timestamp_ahead),
            timedelta(seconds=self._config.timestamp_past),
        )
        if not -ahead <= age <= past:
            raise Refusal(Why.CREDENTIALS, "The timestamp is outside the window.")

    @staticmethod
    def _prove(signed: _Signed, expected: bytes) -> None:
        if signed.mac is None or not hmac.compare_digest(signed.mac, expected):
            raise Refusal(Why.CREDENTIALS, "The signature does not match.")

    def _take_nonce(self, call: Call, device: Device, signed: _Signed) -> None:
        """Keep the nonce until its timestamp has left the window."""
        until = signed.moment + timedelta(seconds=self._config.timestamp_past + 1)
        taken = self._ledger.take_nonce(device.device_id, signed.nonce, to_ms(call.now), to_ms(until))
        if taken is None:
            raise Refusal(Why.TOO_MANY, "Too many requests inside the time window.", retry_after=1)
        if not taken:
            raise Refusal(Why.CREDENTIALS, "The nonce was used before.")


def _version(text: str) -> tuple[int, ...]:
    """``(0, 1, 0, 0)`` for ``"0.1.0"``."""
    parts = [int(part) for part in text.split(".")]
    return (*parts, *([0] * (4 - len(parts))))
