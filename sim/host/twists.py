"""What a fault changes in an answer before the host seals it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sim.faults.wire import OldChargeId, OtherAmount, OtherChargeId
from sim.host.calls import Call
from sim.host.ledger import Ledger
from sim.seed import pick
from terminal.clock import Random

_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"


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
