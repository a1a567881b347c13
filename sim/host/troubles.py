"""What a fault changes at the host itself: the request as it sees it, the device that it knows, what it seals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sim.faults.wire import (
    Clock,
    CorruptRequest,
    ExpiredToken,
    Faults,
    OldChargeId,
    OtherAmount,
    OtherChargeId,
    RevokedDevice,
    RotatedKeys,
    UnclaimedDevice,
    WrongMac,
)
from sim.host.calls import Call
from sim.host.ledger import Ledger, to_ms
from sim.seed import corrupted, pick
from terminal.clock import Random

if TYPE_CHECKING:
    from sim.faults import AnyRule
    from sim.host.host import Host

_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"


# --- before it judges -----------------------------------------------------------------------------------------


def disturb(host: Host, faults: Faults, call: Call, rule: AnyRule) -> None:
    """Do what the rule does before the call is judged. In one transaction of the ledger."""
    act = _BEFORE.get(type(rule))
    if act is not None:
        act(host, faults, call, rule)


def restore(host: Host, faults: Faults, call: Call) -> None:
    """Let devices go on whose revocation was for a while and is over. In one transaction of the ledger."""
    now = to_ms(call.now) / 1000
    for device_id, until in tuple(faults.revoked_until.items()):
        if until <= now:
            host.registry.set_revoked(device_id, False)
            del faults.revoked_until[device_id]


def _clock(_host: Host, _faults: Faults, call: Call, rule: Any) -> None:
    call.now += timedelta(seconds=rule.seconds)


def _corrupt_request(_host: Host, faults: Faults, call: Call, rule: Any) -> None:
    call.body = corrupted(call.body, rule.at, faults.random)


def _wrong_mac(_host: Host, _faults: Faults, call: Call, _rule: Any) -> None:
    version, _, mac = call.headers.get("x-signature", "").partition("=")
    if mac:
        other = "A" if mac[0] != "A" else "B"
        call.headers = {**call.headers, "x-signature": f"{version}={other}{mac[1:]}"}


def _expired_token(host: Host, _faults: Faults, call: Call, _rule: Any) -> None:
    token = call.headers.get("authorization", "").partition(" ")[2]
    owner = host.registry.token_owner(token) or call.device_id
    if owner is not None:
        host.registry.expire_tokens(owner)


def _rotated_keys(host: Host, _faults: Faults, call: Call, _rule: Any) -> None:
    if call.device_id is not None:
        host.registry.end_key_sets(call.device_id, "superseded")


def _revoked(host: Host, faults: Faults, call: Call, rule: Any) -> None:
    if call.device_id is not None:
        host.registry.set_revoked(call.device_id, True)
        if rule.seconds is not None:
            faults.revoked_until[call.device_id] = to_ms(call.now) / 1000 + rule.seconds


def _unclaimed(host: Host, _faults: Faults, call: Call, _rule: Any) -> None:
    if call.device_id is not None:
        host.registry.unclaim(call.device_id)


_BEFORE: dict[type, Callable[[Any, Faults, Call, Any], None]] = {
    Clock: _clock,
    CorruptRequest: _corrupt_request,
    WrongMac: _wrong_mac,
    ExpiredToken: _expired_token,
    RotatedKeys: _rotated_keys,
    RevokedDevice: _revoked,
    UnclaimedDevice: _unclaimed,
}


# --- what it seals --------------------------------------------------------------------------------------------


def twisted(ledger: Ledger, random: Random, call: Call, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer's plaintext as the call's fault would have it: of a charge, a refund, or a list of charges."""
    twist = _TWISTS.get(type(call.fault))
    if twist is None:
        return document
    if isinstance(document.get("charges"), list):
        return {**document, "charges": [twist(ledger, random, call, one) for one in document["charges"]]}
    return twist(ledger, random, call, document)


def _other_amount(_ledger: Ledger, _random: Random, _call: Call, document: Mapping[str, Any]) -> Mapping[str, Any]:
    amount = document.get("amount")
    if not isinstance(amount, dict):
        return document
    return {**document, "amount": {**amount, "value": str(int(amount["value"]) + 1)}}


def _other_charge_id(
    _ledger: Ledger, random: Random, _call: Call, document: Mapping[str, Any]
) -> Mapping[str, Any]:
    field = _charge_field(document)
    return document if field is None else {**document, field: f"ch_{pick(random, _LOWER, 12)}"}


def _old_charge_id(ledger: Ledger, random: Random, call: Call, document: Mapping[str, Any]) -> Mapping[str, Any]:
    field = _charge_field(document)
    old = ledger.other_charge_id(call.terminal_id or "", document[field]) if field else None
    return _other_charge_id(ledger, random, call, document) if old is None else {**document, str(field): old}


def _charge_field(document: Mapping[str, Any]) -> str | None:
    """Where the charge's id stands: a refund has one of its own besides."""
    return next((field for field in ("charge_id", "id") if field in document), None)


_Twist = Callable[[Ledger, Random, Call, Mapping[str, Any]], Mapping[str, Any]]

_TWISTS: dict[type, _Twist] = {
    OtherAmount: _other_amount,
    OtherChargeId: _other_charge_id,
    OldChargeId: _old_charge_id,
}
