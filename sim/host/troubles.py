"""What a fault changes before the host judges a call: the request as it sees it, the device that it knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sim.faults.wire import (
    AnyRule,
    Clock,
    CorruptRequest,
    ExpiredToken,
    Faults,
    RevokedDevice,
    RotatedKeys,
    UnclaimedDevice,
    WrongMac,
)
from sim.host.calls import Call
from sim.host.host import Host
from sim.host.ledger import to_ms
from sim.seed import corrupted


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
