"""Each way to authenticate with the VioPay POS API, as one ``httpx.Auth``.

A flow runs anew for every attempt, so that a repeat carries a fresh timestamp, nonce and signature over the same
body. None of them holds a key: they sign with a callable of the keystore. Source: VioPay POS API, "POS Headers".
"""

from __future__ import annotations

import platform
from collections.abc import Generator

import httpx

from terminal.clock import HostClock, Random, rfc3339
from terminal.crypto.signature import Scheme, Sign, attestation_headers, nonce, request_headers
from terminal.errors import SettingsError

Flow = Generator[httpx.Request, httpx.Response, None]

CLIENT_TYPE = {"X-Client-Type": "pos"}


def user_agent(version: str, model: str, system: str | None = None) -> str:
    """``Viopay-POS/<version> (<os>; <model>)``; raises SettingsError for what a header cannot carry."""
    system = system or platform.system() or "unknown"
    for name, value in (("client_version", version), ("model", model), ("os", system)):
        if not (value and value.isascii() and value.isprintable()) or set(value) & set("();"):
            raise SettingsError(f"host.{name}: {value!r} does not fit the User-Agent header")
    return f"Viopay-POS/{version} ({system}; {model})"


class BearerAuth(httpx.Auth):
    """The merchant's back office: a token of a client session."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class ActivationAuth(httpx.Auth):
    """Bootstrap, pairing code and status: the device says who it is, unsigned."""

    def __init__(self, device_id: str, agent: str) -> None:
        self._headers = {"X-Device-Id": device_id, "User-Agent": agent, **CLIENT_TYPE}

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the identity."""
        request.headers.update(self._headers)
        yield request


class AttestAuth(httpx.Auth):
    """The attestation itself: the device's identity, signed with its identity secret."""

    def __init__(
        self, device_id: str, agent: str, *, sign: Sign, key_id: str, clock: HostClock, random: Random
    ) -> None:
        self._device_id, self._sign, self._key_id = device_id, sign, key_id
        self._clock, self._random = clock, random
        self._headers = {"User-Agent": agent, **CLIENT_TYPE}

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Sign, now."""
        request.headers.update(
            self._headers
            | attestation_headers(
                self._sign,
                device_id=self._device_id,
                key_id=self._key_id,
                timestamp=rfc3339(self._clock.now()),
                nonce=nonce(self._random),
            )
        )
        yield request


class AttestationAuth(httpx.Auth):
    """Keys, config, parameters and activate: attestation's token, and the device that it is bound to."""

    def __init__(self, token: str, device_id: str) -> None:
        self._token, self._device_id = token, device_id

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the token and its device."""
        request.headers["Authorization"] = f"Attestation {self._token}"
        request.headers["X-Device-Id"] = self._device_id
        yield request


class TerminalAuth(httpx.Auth):
    """Payments: an HMAC over the raw body under the MAC key of a key set."""

    requires_request_body = True

    def __init__(
        self,
        terminal_id: str,
        agent: str,
        *,
        sign: Sign,
        key_id: str,
        scheme: Scheme,
        clock: HostClock,
        random: Random,
    ) -> None:
        self._terminal_id, self._sign, self._key_id, self._scheme = terminal_id, sign, key_id, scheme
        self._clock, self._random = clock, random
        self._headers = {"User-Agent": agent, **CLIENT_TYPE}

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Sign the body, now."""
        request.headers.update(
            self._headers
            | request_headers(
                self._sign,
                scheme=self._scheme,
                terminal_id=self._terminal_id,
                key_id=self._key_id,
                timestamp=rfc3339(self._clock.now()),
                nonce=nonce(self._random),
                body=request.content,
            )
        )
        yield request
