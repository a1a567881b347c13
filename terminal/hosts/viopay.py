"""The VioPay POS API: every call of a terminal, and the few of its merchant.

``CALLS`` is the whole protocol on a page. What the JSON looks like is in ``viopay_wire``, ``viopay_answers`` and
``viopay_payments``; how each level authenticates is in ``auth``; what a failure means is in ``http``.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from terminal.clock import HostClock, Random
from terminal.crypto.keystore import Keystore, WrappedKeySet
from terminal.crypto.signature import Scheme
from terminal.errors import HostAnswerInvalid, PaymentRefused, SettingsError
from terminal.hosts import viopay_answers as answers
from terminal.hosts import viopay_payments as payments
from terminal.hosts import viopay_wire as wire
from terminal.hosts.answer import decode
from terminal.hosts.auth import ActivationAuth, AttestationAuth, AttestAuth, BearerAuth, TerminalAuth, user_agent
from terminal.hosts.http import Call, HostSession, Progress, Repeat, Wanted
from terminal.hosts.viopay_refusals import refusal
from terminal.settings import HostSettings


class Level(StrEnum):
    """How a call authenticates."""

    NONE = "none"
    BEARER = "bearer"
    ACTIVATION = "activation"
    ATTEST = "attest"
    ATTESTATION = "attestation"
    TERMINAL = "terminal"


CALLS: dict[str, Call] = {
    call.name: call
    for call in (
        #    name                method  path                        level              repeat
        Call("health", "GET", "/health/live", Level.NONE, Repeat.FREELY),
        Call("client/session", "POST", "/client/session", Level.NONE, Repeat.FREELY),
        Call("auth/token", "POST", "/auth/token", Level.NONE, Repeat.FREELY),
        Call("session/initiate", "POST", "/session/initiate", Level.BEARER, Repeat.FREELY),
        Call("pos/claim", "POST", "/pos/claim", Level.BEARER, Repeat.NEVER),
        Call("pos/bootstrap", "POST", "/pos/bootstrap", Level.ACTIVATION, Repeat.FREELY),
        Call("pos/pairing-code", "POST", "/pos/pairing-code", Level.ACTIVATION, Repeat.FREELY),
        Call("pos/status", "GET", "/pos/status", Level.ACTIVATION, Repeat.FREELY),
        Call("pos/attest", "POST", "/pos/attest", Level.ATTEST, Repeat.FREELY),
        # A set whose answer was lost was never used: the next one takes its place.
        Call("pos/keys", "POST", "/pos/keys", Level.ATTESTATION, Repeat.FREELY),
        Call("pos/config", "POST", "/pos/config", Level.ATTESTATION, Repeat.FREELY),
        Call("pos/terminal-parameters", "POST", "/pos/terminal-parameters", Level.ATTESTATION, Repeat.FREELY),
        Call("pos/activate", "POST", "/pos/activate", Level.ATTESTATION, Repeat.NEVER),
        Call("pos/charge", "POST", "/pos/charge", Level.TERMINAL, Repeat.KEYED),
        Call("pos/refund", "POST", "/pos/charge/{id}/refund", Level.TERMINAL, Repeat.KEYED),
        Call("pos/cancel", "POST", "/pos/charge/{id}/cancel", Level.TERMINAL, Repeat.KEYED),
        Call("pos/reverse", "POST", "/pos/charge/{id}/reverse", Level.TERMINAL, Repeat.KEYED),
        Call("pos/charge-by-id", "GET", "/pos/charge/{id}", Level.TERMINAL, Repeat.FREELY),
        Call("pos/charges", "GET", "/pos/charge?reference={reference}", Level.TERMINAL, Repeat.FREELY),
        Call("pos/refund-status", "GET", "/pos/refund/{id}", Level.TERMINAL, Repeat.FREELY),
        Call("pos/heartbeat", "POST", "/pos/heartbeat", Level.TERMINAL, Repeat.NEVER),
    )
}

ANSWER_LIMIT = 64 * 1024
"""Bytes of plaintext in the envelope of a payment's answer: a hundred charges of a lookup fit."""

A = TypeVar("A", payments.ChargeAnswer, payments.CancelAnswer, payments.RefundAnswer)


class ViopayClient:
    """A terminal's calls. Bodies that a caller must be able to send again unchanged are handed in sealed.

    Every method raises HostUnreachable, HostSilent or HostRefused as ``HostSession.request`` does, and
    HostAnswerInvalid for an answer with a wrong field. Those that open an envelope raise EnvelopeError as well.
    After a call that acts, either of the last two leaves in doubt what the host did.
    """

    def __init__(
        self, session: HostSession, keystore: Keystore, clock: HostClock, random: Random, settings: HostSettings
    ) -> None:
        self._session, self._keystore, self._clock, self._random = session, keystore, clock, random
        self._agent = user_agent(settings.client_version, settings.model)
        self._scheme = Scheme(settings.signature_scheme)
        self._offers_lookup = settings.offers_lookup

    # -- activation -----------------------------------------------------------------------------------------

    async def health(self) -> str:
        """The name of the service that answers at this URL."""
        call = CALLS["health"]
        return answers.health(call.name, (await self._session.request(call, refusal=refusal)).body)

    async def bootstrap(self) -> answers.Bootstrap:
        """The host's time, and the oldest version that it serves."""
        return answers.bootstrap("pos/bootstrap", await self._introduced("pos/bootstrap"))

    async def pairing_code(self) -> answers.PairingCode:
        """A new code; the one before holds no longer."""
        return decode("pos/pairing-code", answers.PairingCode, await self._introduced("pos/pairing-code"))

    async def status(self) -> answers.DeviceStatus:
        """Whether the device is claimed, and what became of its pairing code."""
        return decode("pos/status", answers.DeviceStatus, await self._introduced("pos/status"))

    async def attest(self) -> answers.Attested:
        """A token for the steps that follow, against a signature of the device's identity."""
        call = CALLS["pos/attest"]
        auth = AttestAuth(
            self._keystore.device_id,
            self._agent,
            sign=self._keystore.sign_attestation,
            key_id=self._keystore.identity_key_id,
            clock=self._clock,
            random=self._random,
        )
        came = await self._session.request(call, refusal=refusal, auth=auth)
        return decode(call.name, answers.Attested, came.body)

    async def keys(self, token: str) -> WrappedKeySet:
        """A new key set, wrapped, for the keystore to judge."""
        return answers.key_set("pos/keys", await self._attested("pos/keys", token))

    async def config(self, token: str) -> bytes:
        """The configuration's envelope as it came."""
        return await self._attested("pos/config", token)

    async def parameters(self, token: str, progress: Progress | None = None) -> bytes:
        """The terminal parameters' envelope as it came; ``progress`` hears of each piece."""
        return await self._attested("pos/terminal-parameters", token, progress=progress)

    async def activate(
        self, token: str, *, emv_ready: bool, keys_installed: bool, network_ok: bool
    ) -> answers.Activated:
        """The last step."""
        plaintext = wire.activate_request(emv_ready=emv_ready, keys_installed=keys_installed, network_ok=network_ok)
        came = await self._attested("pos/activate", token, self._keystore.seal(plaintext))
        return answers.activated("pos/activate", self._keystore.open(came, limit=ANSWER_LIMIT))

    # -- payments -------------------------------------------------------------------------------------------

    def holds(self, key_set_id: str) -> bool:
        """Whether requests can still be signed under that key set."""
        return self._keystore.holds(key_set_id)

    def has_newer_than(self, key_set_id: str | None) -> bool:
        """Whether that is not the key set in use; None is."""
        return key_set_id not in (None, self._keystore.key_set_id)

    def keys_since(self) -> datetime | None:
        """When the host made the key set in use; it has judged nothing under another since. None without one."""
        return self._keystore.key_set_issued_at

    async def charge(
        self, body: bytes, idempotency_key: str, key_set_id: str | None, wanted: Wanted = lambda: True
    ) -> payments.ChargeAnswer:
        """Ask for money. ``body`` is the sealed ``charge_request``; a repeat hands in the same bytes and key.

        ``key_set_id`` is the one that signs; None is the current set. Once it is not ``wanted`` any more, what has
        not reached the host is not sent again.
        """
        came = await self._paying("pos/charge", body, idempotency_key, key_set_id, wanted=wanted)
        return payments.charge("pos/charge", came)

    async def refund(
        self, charge_id: str, body: bytes, idempotency_key: str, key_set_id: str | None
    ) -> payments.RefundAnswer:
        """Give money back. ``body`` is the sealed ``refund_request``."""
        path = _path("pos/refund", charge_id, wire.CHARGE_ID)
        came = payments.refund(
            "pos/refund", await self._paying("pos/refund", body, idempotency_key, key_set_id, path)
        )
        if came.charge_id != charge_id:
            raise HostAnswerInvalid("pos/refund", "charge_id", "it is of another charge than the one asked about")
        return came

    async def cancel(self, charge_id: str) -> payments.CancelAnswer:
        """Void a charge before settlement; a second time gives the same answer."""
        return await self._cancel("pos/cancel", charge_id)

    async def reverse(self, charge_id: str) -> payments.CancelAnswer:
        """``cancel`` by the host's other name for it."""
        return await self._cancel("pos/reverse", charge_id)

    async def charge_by_id(self, charge_id: str) -> payments.ChargeAnswer:
        """A charge as it stands; SettingsError where ``offers_lookup`` is off."""
        self._need_lookup()
        path = _path("pos/charge-by-id", charge_id, wire.CHARGE_ID)
        came = await self._paying("pos/charge-by-id", path=path)
        return _about(charge_id, "pos/charge-by-id", payments.charge("pos/charge-by-id", came))

    async def charges_by_reference(self, reference: str) -> list[payments.ChargeAnswer]:
        """This terminal's charges under a reference; SettingsError where ``offers_lookup`` is off."""
        self._need_lookup()
        path = CALLS["pos/charges"].path.format(reference=quote(reference, safe=""))
        found = payments.charges("pos/charges", await self._paying("pos/charges", path=path))
        for n, one in enumerate(found):
            if one.reference != reference:
                raise HostAnswerInvalid("pos/charges", f"charges[{n}].reference", "it is not the one asked about")
        return found

    async def refund_status(self, refund_id: str) -> payments.RefundAnswer:
        """A refund as it stands: a host may fail one later."""
        path = _path("pos/refund-status", refund_id, wire.REFUND_ID)
        came = await self._paying("pos/refund-status", path=path)
        return _about(refund_id, "pos/refund-status", payments.refund("pos/refund-status", came))

    async def heartbeat(self, *, uptime_sec: int, pending: int, version: str) -> answers.HeartbeatAnswer:
        """Tell the host that we live, and hear what it wants done."""
        plaintext = wire.heartbeat_request(uptime_sec=uptime_sec, pending=pending, version=version)
        return answers.heartbeat(
            "pos/heartbeat", await self._paying("pos/heartbeat", self._keystore.seal(plaintext))
        )

    # -- below ----------------------------------------------------------------------------------------------

    async def _introduced(self, name: str) -> bytes:
        auth = ActivationAuth(self._keystore.device_id, self._agent)
        return (await self._session.request(CALLS[name], refusal=refusal, auth=auth)).body

    async def _attested(self, name: str, token: str, body: bytes = b"", progress: Progress | None = None) -> bytes:
        auth = AttestationAuth(token, self._keystore.device_id)
        came = await self._session.request(CALLS[name], refusal=refusal, auth=auth, body=body, progress=progress)
        return came.body

    async def _paying(
        self,
        name: str,
        body: bytes = b"",
        idempotency_key: str | None = None,
        key_set_id: str | None = None,
        path: str | None = None,
        wanted: Wanted = lambda: True,
    ) -> bytes:
        """The opened plaintext of the answer to a signed call. ``key_set_id``: None is the current set."""
        auth = TerminalAuth(
            self._keystore.terminal_id,
            self._agent,
            sign=partial(self._keystore.sign_request, key_set_id=key_set_id),
            key_id=self._keystore.mac_key_id(key_set_id),
            scheme=self._scheme,
            clock=self._clock,
            random=self._random,
        )
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        came = await self._session.request(
            CALLS[name], refusal=refusal, path=path, auth=auth, body=body, headers=headers, wanted=wanted
        )
        return self._keystore.open(came.body, limit=ANSWER_LIMIT, key_set_id=key_set_id)

    async def _cancel(self, name: str, charge_id: str) -> payments.CancelAnswer:
        came = await self._paying(name, path=_path(name, charge_id, wire.CHARGE_ID))
        return _about(charge_id, name, payments.cancel(name, came))

    def _need_lookup(self) -> None:
        if not self._offers_lookup:
            raise SettingsError("host.offers_lookup is off: this host cannot be asked about a charge")


class MerchantClient:
    """The merchant's side, as its portal would use it: log in, then claim a device by its pairing code.

    Keeps the token of the last ``client_session``, which the other calls need.
    """

    def __init__(self, session: HostSession) -> None:
        self._session = session
        self._auth: BearerAuth | None = None

    async def client_session(
        self, client_id: str, client_secret: str, *, alias: bool = False
    ) -> answers.AccessToken:
        """Log in; ``alias`` uses ``/auth/token``, the older path."""
        call = CALLS["auth/token" if alias else "client/session"]
        body = wire.session_request(client_id, client_secret)
        came = await self._session.request(call, refusal=refusal, body=body)
        token = decode(call.name, answers.AccessToken, came.body)
        self._auth = BearerAuth(token.access_token)
        return token

    async def session_initiate(self, host: str = "merchant.viopay.io") -> answers.SessionInitiated:
        """Begin the merchant's session, which calls in the merchant's scope need."""
        call = CALLS["session/initiate"]
        body = wire.initiate_request(host)
        came = await self._session.request(call, refusal=refusal, auth=self._auth, body=body)
        return decode(call.name, answers.SessionInitiated, came.body)

    async def claim(self, pairing_code: str) -> answers.Claimed:
        """Claim the device that shows this code."""
        call = CALLS["pos/claim"]
        body = wire.claim_request(pairing_code)
        came = await self._session.request(call, refusal=refusal, auth=self._auth, body=body)
        return decode(call.name, answers.Claimed, came.body)


def _path(name: str, given: str, pattern: str) -> str:
    """The call's path with an id in it, which a person may have typed."""
    if not re.match(pattern, given):
        raise PaymentRefused(f"{given[:80]!r} is not an id that the host gives: they look like ch_abc123def456")
    return CALLS[name].path.format(id=given)


def _about(asked: str, name: str, came: A) -> A:
    if came.id != asked:
        raise HostAnswerInvalid(name, "id", "it is not the one asked about")
    return came
