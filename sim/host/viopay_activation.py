"""VioPay POS API: the merchant's side, and the way from bootstrap to activate.

Each function runs inside one transaction of the ledger.
"""

from __future__ import annotations

import base64
import hmac
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from sim.host.calls import Answer, Call, decoded, plain_answer, shaped
from sim.host.documents import MERCHANT_NAME, terminal_config
from sim.host.host import Host
from sim.host.hsm import LiveKeys
from sim.host.ledger import from_ms, to_ms
from sim.host.refusals import Refusal, Why
from sim.host.registry import Device, KeySetRow
from sim.host.requests import ActivateRequest, open_request
from sim.seed import pick
from terminal.clock import rfc3339

PAIRING_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without 0, O, I and 1, which people mistake for each other."""
_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_JWT_HEADER = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').rstrip(b"=").decode()

Short = Annotated[str, Meta(min_length=1, max_length=256)]


class SessionRequest(Struct):
    """``POST /client/session``."""

    client_id: Short
    client_secret: Short
    grant_type: Literal["client_credentials"]


class InitiateRequest(Struct):
    """``POST /session/initiate``."""

    host: Short


class ClaimRequest(Struct):
    """``POST /pos/claim``."""

    pairing_code: Annotated[str, Meta(pattern="^[A-Z0-9]{6}$")]


# --- the merchant's side --------------------------------------------------------------------------------------


def client_session(host: Host, call: Call) -> Answer:
    """``POST /client/session`` and its alias ``/auth/token``: an opaque token that looks like a JWT."""
    call.request, request = decoded(call.body, SessionRequest)
    merchant = host.registry.merchant(request.client_id)
    secret = host.hsm.open(f"merchant {merchant.client_id}", merchant.sealed) if merchant else b"\0" * 32
    if not hmac.compare_digest(request.client_secret.encode(), secret) or merchant is None:
        raise Refusal(Why.CREDENTIALS, "The client id or its secret is wrong.")
    token = f"{_JWT_HEADER}.{_opaque(host, 96)}.{_opaque(host, 64)}"
    life = _keep_token(host, call, "session", token, merchant.client_id)
    return plain_answer({"access_token": token, "token_type": "Bearer", "expires_in": life})


def session_initiate(host: Host, call: Call) -> Answer:
    """``POST /session/initiate``: the context that merchant-scoped calls need."""
    merchant, token = host.gate.bearer(call, initiated=False)
    call.request, _ = decoded(call.body, InitiateRequest)
    host.registry.initiate(token)
    shown = {
        "merchant_id": merchant.merchant_id,
        "client_id": merchant.client_id,
        "name": MERCHANT_NAME,
    }
    return plain_answer({"status": "ok", "merchant": shown, "channel": "pos"})


def claim(host: Host, call: Call) -> Answer:
    """``POST /pos/claim``: 409 before ``/session/initiate``; a code that is used or expired is unknown (404)."""
    merchant, _ = host.gate.bearer(call, initiated=True)
    call.request, request = decoded(call.body, ClaimRequest)
    now = to_ms(call.now)
    device_id = host.registry.paired_device(request.pairing_code, now)
    device = host.registry.device(device_id) if device_id else None
    if device is None:
        raise Refusal(Why.UNKNOWN, "The pairing code is unknown, used or expired.")
    call.device_id, call.terminal_id = device.device_id, device.terminal_id
    if device.client_id != merchant.client_id:
        raise Refusal(Why.NOT_YOURS, "The device belongs to another merchant.")
    if device.revoked:
        raise Refusal(Why.BLOCKED, f"{device.device_id} is revoked.")
    host.registry.claim(device.device_id, now)
    return plain_answer({"status": "claimed", "device_id": device.device_id})


# --- the device: activation level -----------------------------------------------------------------------------


def bootstrap(host: Host, call: Call) -> Answer:
    """``POST /pos/bootstrap``: the time, and the lowest version that may go on."""
    device = host.gate.activation(call)
    host.registry.bootstrapped(device.device_id, to_ms(call.now))
    version = host.config.min_supported_version
    return plain_answer({"status": "ok", "server_time": rfc3339(call.now), "min_supported_version": version})


def pairing_code(host: Host, call: Call) -> Answer:
    """``POST /pos/pairing-code``: a new code in place of any before. 409 before bootstrap and once claimed."""
    device = host.gate.activation(call)
    if device.bootstrapped_at is None:
        raise Refusal(Why.CONFLICT, "POST /pos/bootstrap comes first.")
    if device.claimed_at is not None:
        raise Refusal(Why.CONFLICT, "The device is claimed already.")
    life = host.config.pairing_code_life
    expires_at = to_ms(call.now) + 1000 * life
    code = pick(host.random, PAIRING_ALPHABET, 6)
    while not host.registry.set_pairing_code(device.device_id, code, expires_at):
        code = pick(host.random, PAIRING_ALPHABET, 6)
    return plain_answer({"pairing_code": code, "expires_in_sec": life})


def status(host: Host, call: Call) -> Answer:
    """``GET /pos/status``."""
    device = host.gate.activation(call)
    return plain_answer(
        {
            "device_status": device.status,
            "is_claimed": device.claimed_at is not None,
            "pairing_code_status": host.registry.pairing_status(device.device_id, to_ms(call.now)),
        }
    )


def attest(host: Host, call: Call) -> Answer:
    """``POST /pos/attest``: a token for this device."""
    device = host.gate.attest(call)
    if device.unclaimed:
        raise Refusal(Why.BLOCKED, f"{device.device_id} is unclaimed.")
    if device.claimed_at is None:
        raise Refusal(Why.CONFLICT, "POST /pos/claim comes first.")
    token = f"att_{_opaque(host, 48)}"
    life = _keep_token(host, call, "attestation", token, device.device_id)
    return plain_answer({"status": "attested", "attestation_token": token, "expires_in_sec": life})


# --- the device: attestation level ----------------------------------------------------------------------------


def keys(host: Host, call: Call) -> Answer:
    """``POST /pos/keys``: a new key set each time; the ones before go on until they expire."""
    device = host.gate.attestation(call)
    now = to_ms(call.now)
    expires_at = now + 1000 * host.config.key_set_life
    key_set_id = f"ks_{pick(host.random, _LOWER, 16)}"
    zmk = host.hsm.open_device(device.device_id, device.sealed).zmk
    made = host.hsm.make_key_set(key_set_id, zmk)
    host.registry.add_key_set(
        KeySetRow(0, key_set_id, device.device_id, made.mac_key_id, now, expires_at, "live", made.sealed)
    )
    host.registry.end_key_sets(device.device_id, "superseded", keep=host.config.max_live_key_sets)
    _done(host, device, "rotate_keys")
    return plain_answer(
        {
            "key_set": {
                "key_set_id": key_set_id,
                "issued_at": rfc3339(from_ms(now)),
                "expires_at": rfc3339(from_ms(expires_at)),
            },
            "transport": {"format": "TR31", "encryption": "AES-256", "wrapped_under": "kek"},
            "keys": made.keys,
        }
    )


def config(host: Host, call: Call) -> Answer:
    """``POST /pos/config``: the configuration, under the newest key set."""
    device = host.gate.attestation(call)
    live = _usable_key_sets(host, device, call)[0]
    host.registry.took_config(device.device_id, to_ms(call.now))
    _done(host, device, "refresh_config")
    merchant = host.registry.merchant(device.client_id)
    return host.sealed(call, live, terminal_config(device, merchant.merchant_id if merchant else ""))


def terminal_parameters(host: Host, call: Call) -> Answer:
    """``POST /pos/terminal-parameters``: in chunks, under the newest key set."""
    device = host.gate.attestation(call)
    live = _usable_key_sets(host, device, call)[0]
    host.registry.took_parameters(device.device_id, to_ms(call.now))
    _done(host, device, "refresh_parameters")
    return host.sealed_parameters(call, live)


def activate(host: Host, call: Call) -> Answer:
    """``POST /pos/activate``: 409 with a false flag, or before keys, configuration and parameters."""
    device = host.gate.attestation(call)
    live, call.request = _opened(host, call, _usable_key_sets(host, device, call))
    ready = shaped(call.request, ActivateRequest)
    missing = [name for name in ActivateRequest.__struct_fields__ if not getattr(ready, name)]
    if missing:
        raise Refusal(Why.CONFLICT, f"The terminal is not ready: {', '.join(missing)}.", missing=missing)
    if device.config_at is None or device.parameters_at is None:
        raise Refusal(Why.CONFLICT, "POST /pos/config and POST /pos/terminal-parameters come first.")
    activated_at = device.activated_at
    if activated_at is None:
        activated_at = to_ms(call.now)
        host.registry.activated(device.device_id, activated_at)
    return host.sealed(call, live, {"status": "activated", "activated_at": rfc3339(from_ms(activated_at))})


# --- parts ----------------------------------------------------------------------------------------------------


def _opaque(host: Host, size: int) -> str:
    return base64.urlsafe_b64encode(host.random(size)).rstrip(b"=").decode()


def _keep_token(host: Host, call: Call, kind: str, token: str, owner: str) -> int:
    """Keep the token; give back its life in seconds. 429 where the owner has too many."""
    now, life = to_ms(call.now), host.config.token_life
    if host.registry.live_tokens(owner, now) >= host.config.max_live_tokens:
        raise Refusal(Why.TOO_MANY, "Too many tokens at once.", retry_after=life)
    host.registry.add_token(kind, token, owner, now + 1000 * life)
    return life


def _usable_key_sets(host: Host, device: Device, call: Call) -> list[LiveKeys]:
    """The device's key sets that still work, the newest first; 409 where it never had any, 401 where all ended."""
    rows = host.registry.key_sets(device.device_id, limit=host.config.max_live_key_sets)
    known = [row for row in rows if row.state != "revoked"]
    if not known:
        raise Refusal(Why.CONFLICT, "POST /pos/keys comes first.")
    usable = [host.hsm.open_key_set(row.key_set_id, row.sealed) for row in known if row.usable(to_ms(call.now))]
    if not usable:
        raise Refusal(Why.SUPERSEDED, "The key set is superseded: take new keys.")
    return usable


def _opened(host: Host, call: Call, usable: list[LiveKeys]) -> tuple[LiveKeys, Any]:
    """The key set under which a request was sealed, and its JSON. No header names the set, so each is tried."""
    for live in usable[:-1]:
        try:
            return live, open_request(live, call.body, host.config.max_plaintext)
        except Refusal as refusal:
            if refusal.why is not Why.MALFORMED:
                raise
    return usable[-1], open_request(usable[-1], call.body, host.config.max_plaintext)


def _done(host: Host, device: Device, action: str) -> None:
    """The device has done what its heartbeat was told."""
    if action in device.actions.split():
        host.registry.set_actions(device.device_id, " ".join(a for a in device.actions.split() if a != action))
