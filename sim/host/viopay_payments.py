"""VioPay POS API: charge, refund, cancel, their lookups, and the heartbeat. All under the POS HMAC.

Each function runs inside one transaction of the ledger: the nonce, the effect and the idempotency record are
committed together, or none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec

from sim.faults.wire import Cached5xx, LateApproval
from sim.host.calls import Answer, Call, shaped
from sim.host.host import Host
from sim.host.hsm import LiveKeys
from sim.host.ledger import Charge, Refund, Remembered, from_ms, money, to_ms
from sim.host.outcomes import PENDING_RESPONSE_CODE, outcome
from sim.host.refusals import KEY_ELSEWHERE, KEY_REUSED, Refusal, Why
from sim.host.registry import Device
from sim.host.requests import ChargeRequest, HeartbeatRequest, RefundRequest, asked, check_charge, open_request
from sim.seed import pick
from terminal.clock import rfc3339

_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_DIGITS = "0123456789"
_MAX_KEY = 255

REMEMBERED_REFUSALS = frozenset({Why.UNKNOWN, Why.CONFLICT, Why.RULE})
"""Refusals that an idempotency key keeps: the host has opened the request and judged it."""

_Judged = tuple[dict[str, Any], int | None]
"""What an endpoint answers, and until when (milliseconds) the answer is held back."""


def charge(host: Host, call: Call) -> Answer:
    """``POST /pos/charge``."""
    device, keys = host.gate.payment(call)

    def judge(key: str | None) -> _Judged:
        return _charge(host, call, device, keys, key)

    return _once(host, call, device, keys, "POST /pos/charge", judge)


def refund(host: Host, call: Call) -> Answer:
    """``POST /pos/charge/{id}/refund``."""
    device, keys = host.gate.payment(call)

    def judge(key: str | None) -> _Judged:
        return _refund(host, call, device, keys, key), None

    return _once(host, call, device, keys, f"POST /pos/charge/{call.id}/refund", judge)


def cancel(host: Host, call: Call) -> Answer:
    """``POST /pos/charge/{id}/cancel`` and its alias ``/reverse``. A pending charge may be cancelled too."""
    device, keys = host.gate.payment(call)

    def judge(_key: str | None) -> _Judged:
        return _cancel(host, call, device), None

    return _once(host, call, device, keys, f"POST /pos/charge/{call.id}/cancel", judge)


def charge_lookup(host: Host, call: Call) -> Answer:
    """``GET /pos/charge/{id}``: the answer of the charge, with today's status."""
    device, keys = host.gate.payment(call)
    _offered(host)
    return host.sealed(call, keys, _show(host, _own_charge(host, call.id, device), to_ms(call.now)))


def charge_search(host: Host, call: Call) -> Answer:
    """``GET /pos/charge?reference=``: the terminal's charges under that reference, the oldest first."""
    device, keys = host.gate.payment(call)
    _offered(host)
    reference = call.query.get("reference", "")
    call.request = {"reference": reference}
    if not reference:
        raise Refusal(Why.MALFORMED, "reference: missing.")
    found = host.ledger.charges(device.terminal_id, reference)
    shown = [_show(host, charge, to_ms(call.now)) for charge in found]
    return host.sealed(call, keys, {"charges": shown})


def refund_lookup(host: Host, call: Call) -> Answer:
    """``GET /pos/refund/{id}``: the answer of the refund, ``failed`` where it failed since."""
    device, keys = host.gate.payment(call)
    _offered(host)
    found = host.ledger.refund(call.id, device.terminal_id)
    owner = host.ledger.charge(found.charge_id, device.terminal_id) if found else None
    if found is None or owner is None:
        raise Refusal(Why.UNKNOWN, "The refund is unknown.")
    return host.sealed(call, keys, _show_refund(found, owner.currency, to_ms(call.now)))


def heartbeat(host: Host, call: Call) -> Answer:
    """``POST /pos/heartbeat``: what to do next; ``rotate_keys`` when the key set in use ends soon."""
    device, keys = host.gate.payment(call)
    call.request = open_request(keys, call.body, host.config.max_plaintext)
    shaped(call.request, HeartbeatRequest)
    actions = device.actions.split()
    used = host.registry.key_set_by_mac(device.device_id, call.headers["x-key-id"])
    ends_soon = used is not None and used.expires_at - to_ms(call.now) <= 1000 * host.config.rotate_before
    if ends_soon and "rotate_keys" not in actions:
        actions.insert(0, "rotate_keys")
    return host.sealed(call, keys, {"server_time": rfc3339(call.now), "actions": actions})


# --- idempotency ----------------------------------------------------------------------------------------------


def _once(
    host: Host, call: Call, device: Device, keys: LiveKeys, endpoint: str, judge: Callable[[str | None], _Judged]
) -> Answer:
    """Act, unless this terminal's idempotency key has seen this endpoint and these raw bytes before.

    What was judged is kept under the key: the answer's plaintext, which is sealed anew for each retry, or the
    error body. A refusal before that (400, 401, 403, 426, 429) and a 5xx leave the key free.
    """
    key = _idempotency_key(call)
    fails = isinstance(call.fault, Cached5xx)
    if key is None:
        if fails:
            raise _fails(call, judge, None)
        document, not_before = judge(None)
        return _held(host.sealed(call, keys, document), not_before)
    now, digest = to_ms(call.now), sha256(call.body).digest()
    known = host.ledger.recall(device.terminal_id, key, now - 1000 * host.config.idempotency_life)
    if known is not None:
        if known.endpoint != endpoint:
            raise Refusal(Why.CONFLICT, KEY_ELSEWHERE)
        if known.body_sha256 != digest:
            raise Refusal(Why.CONFLICT, KEY_REUSED)
        return _again(host, call, keys, known)
    try:
        if fails:
            raise _fails(call, judge, key)
        document, not_before = judge(key)
    except Refusal as refusal:
        if refusal.why in REMEMBERED_REFUSALS or fails:
            kept = msgspec.json.encode(
                {"why": refusal.why.name, "message": refusal.message, "details": refusal.details}
            )
            what = Remembered(endpoint, digest, refusal.why.status, kept, None)
            host.ledger.remember(device.terminal_id, key, what, now)
        raise
    what = Remembered(endpoint, digest, 200, msgspec.json.encode(document), not_before)
    host.ledger.remember(device.terminal_id, key, what, now)
    return _held(host.sealed(call, keys, document), not_before)


def _fails(call: Call, judge: Callable[[str | None], _Judged], key: str | None) -> Refusal:
    """The 500 that a fault wants: the host has acted, or not, and says nothing of it."""
    if isinstance(call.fault, Cached5xx) and call.fault.acted:
        judge(key)
    return Refusal(Why.BROKEN, "The host has failed.")


def _again(host: Host, call: Call, keys: LiveKeys, known: Remembered) -> Answer:
    """The first answer again. One that is still held back is held back for the rest of its time."""
    document = msgspec.json.decode(known.answer)
    with suppress(Refusal):  # for the record only: it was opened before, perhaps under another key set
        call.request = open_request(keys, call.body, host.config.max_plaintext)
    if known.status != 200:
        raise Refusal(Why[document["why"]], document["message"], **document["details"])
    return _held(host.sealed(call, keys, document), known.not_before)


def _held(answer: Answer, not_before: int | None) -> Answer:
    if not_before is not None:
        answer.not_before = from_ms(not_before)
    return answer


def _idempotency_key(call: Call) -> str | None:
    """The header's value, or None where there is none; 400 where it is no key."""
    if "idempotency-key" not in call.headers:
        return None
    key = call.headers["idempotency-key"]
    if "idempotency-key" in call.repeated or not (0 < len(key) <= _MAX_KEY and key.isascii() and key.isprintable()):
        raise Refusal(Why.MALFORMED, "The header idempotency-key is malformed.", header="idempotency-key")
    return key


# --- judging --------------------------------------------------------------------------------------------------


def _charge(host: Host, call: Call, device: Device, keys: LiveKeys, key: str | None) -> _Judged:
    call.request = open_request(keys, call.body, host.config.max_plaintext)
    request = shaped(call.request, ChargeRequest)
    amount, network = check_charge(request, keys)
    now, ends = to_ms(call.now), outcome(amount.minor)
    approved = ends.status == "approved"
    made = Charge(
        n=0,
        id=f"ch_{pick(host.random, _LOWER, 12)}",
        terminal_id=device.terminal_id,
        idempotency_key=key,
        reference=request.reference,
        amount=amount.minor // 2 if ends.half else amount.minor,
        currency=amount.currency,
        entry_mode=request.entry_mode,
        outcome=ends.status,
        response_code=ends.response_code,
        message=ends.message,
        authorization_code=pick(host.random, _UPPER, 6) if approved else "",
        network=network,
        rrn=pick(host.random, _DIGITS, 12),
        emv=_issuer_data(request.entry_mode, ends.response_code),
        refund_fails=int(ends.refund_fails),
        created_at=now,
        pending_until=now + 1000 * host.config.pending_life if ends.pending else None,
    )
    if isinstance(call.fault, LateApproval) and approved:
        return _late_approval(host, made, now + int(1000 * call.fault.seconds))
    host.ledger.add_charge(made)
    not_before = call.now + timedelta(seconds=host.config.slow_answer) if ends.slow else None
    return _show(host, made, now, refunded=0), to_ms(not_before) if not_before else None


def _late_approval(host: Host, made: Charge, at: int) -> _Judged:
    """The issuer answers only then: pending until that, and approved in the answer, whatever has been by then."""
    made = replace(made, pending_until=at)
    host.ledger.add_charge(made)
    return _show(host, made, at, refunded=0), at


def _refund(host: Host, call: Call, device: Device, keys: LiveKeys, key: str | None) -> dict[str, Any]:
    call.request = open_request(keys, call.body, host.config.max_plaintext)
    request = shaped(call.request, RefundRequest)
    amount = asked(request.amount)
    owner = _own_charge(host, call.id, device)
    now = to_ms(call.now)
    refunded = host.ledger.refunded(owner.id, now)
    status = owner.status(refunded, now)
    if status not in ("approved", "partially_refunded", "refunded"):
        raise Refusal(Why.CONFLICT, f"The charge is {status}: only an approved one can be refunded.", status=status)
    if amount.currency != owner.currency:
        raise Refusal(Why.RULE, f"amount: the charge was in {owner.currency}.")
    left = owner.amount - refunded
    if amount.minor > left:
        raise Refusal(Why.RULE, "amount: more than is left of the charge.", left=money(left, owner.currency))
    made = Refund(
        n=0,
        id=f"rf_{pick(host.random, _LOWER, 12)}",
        charge_id=owner.id,
        terminal_id=device.terminal_id,
        idempotency_key=key,
        amount=amount.minor,
        reason=request.reason,
        created_at=now,
        fails_at=now + 1000 * host.config.refund_fails_after if owner.refund_fails else None,
    )
    host.ledger.add_refund(made)
    return _show_refund(made, owner.currency, now)


def _cancel(host: Host, call: Call, device: Device) -> dict[str, Any]:
    owner, now = _own_charge(host, call.id, device), to_ms(call.now)
    status = owner.status(host.ledger.refunded(owner.id, now), now)
    canceled_at = owner.canceled_at
    if status != "canceled":
        if status not in ("approved", "pending"):
            raise Refusal(
                Why.CONFLICT, f"The charge is {status}: only an approved one can be cancelled.", status=status
            )
        if owner.settled(now, host.config.settle_after):
            path = f"/pos/charge/{owner.id}/refund"
            raise Refusal(Why.CONFLICT, "The charge is settled: refund it.", refund=path)
        host.ledger.cancel(owner.id, now)
        canceled_at = now
    return {"id": owner.id, "status": "canceled", "canceled_at": rfc3339(from_ms(canceled_at or now))}


def _own_charge(host: Host, charge_id: str, device: Device) -> Charge:
    found = host.ledger.charge(charge_id, device.terminal_id)
    if found is None:
        raise Refusal(Why.UNKNOWN, "The charge is unknown.")
    return found


def _offered(host: Host) -> None:
    if not host.config.offers_lookup:
        raise Refusal(Why.UNKNOWN, "This host offers no lookup.")


# --- showing --------------------------------------------------------------------------------------------------


def _show(host: Host, charge: Charge, now: int, refunded: int | None = None) -> dict[str, Any]:
    status = charge.status(host.ledger.refunded(charge.id, now) if refunded is None else refunded, now)
    pending = status == "pending"
    return {
        "id": charge.id,
        "status": status,
        "amount": money(charge.amount, charge.currency),
        "reference": charge.reference,
        "authorization_code": "" if pending else charge.authorization_code,
        "response_code": PENDING_RESPONSE_CODE if pending else charge.response_code,
        "emv": "" if pending else charge.emv,
        "message": charge.message,
        "created_at": rfc3339(from_ms(charge.created_at)),
        "gateway": {"network": charge.network, "rrn": charge.rrn},
    }


def _show_refund(refund: Refund, currency: str, now: int) -> dict[str, Any]:
    return {
        "id": refund.id,
        "charge_id": refund.charge_id,
        "status": refund.status(now),
        "amount": money(refund.amount, currency),
        "created_at": rfc3339(from_ms(refund.created_at)),
    }


def _issuer_data(entry_mode: str, response_code: str) -> str:
    """Tag 8A, the authorisation response code, for a card that listens."""
    if entry_mode not in ("chip", "contactless"):
        return ""
    return "8A02" + response_code.encode("ascii").hex().upper()
