"""What a fault rule may want to know of a request before the host has judged it. Nothing here is believed."""

from __future__ import annotations

from typing import Any

from sim.faults.wire import NOTHING_SEEN, Seen
from sim.host.call_names import PAYMENT_CALLS
from sim.host.calls import Call
from sim.host.host import Host
from sim.host.outcomes import network
from sim.host.refusals import Refusal
from sim.host.registry import Device
from sim.host.requests import open_request


def peek_device(host: Host, call: Call) -> Device | None:
    """The device that the request names, by its own id or by its terminal id."""
    device_id = call.headers.get("x-device-id")
    if device_id is not None:
        return host.registry.device(device_id)
    return host.registry.terminal(call.headers.get("x-terminal-id", ""))


def peek_payment(host: Host, call: Call) -> Seen:
    """What is inside a charge's or a refund's envelope, as far as it opens."""
    device = peek_device(host, call)
    if call.name not in PAYMENT_CALLS or device is None:
        return NOTHING_SEEN
    row = host.registry.key_set_by_mac(device.device_id, call.headers.get("x-key-id", ""))
    if row is None:
        return NOTHING_SEEN
    keys = host.hsm.open_key_set(row.key_set_id, row.sealed)
    try:
        opened: Any = open_request(keys, call.body, host.config.max_plaintext)
        amount = int(opened["amount"]["value"])
    except (Refusal, KeyError, TypeError, ValueError):
        return NOTHING_SEEN
    card = opened.get("card")
    masked = card.get("masked_pan") if isinstance(card, dict) else None
    if not isinstance(masked, str):
        return Seen(amount)
    return Seen(amount, masked, network(masked))
