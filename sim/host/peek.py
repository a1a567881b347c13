"""What a fault rule may want to know of a request before the host has judged it. Nothing here is believed."""

from __future__ import annotations

from typing import Any

from sim.host.calls import PAYMENT_CALLS, Call
from sim.host.host import Host
from sim.host.refusals import Refusal
from sim.host.registry import Device
from sim.host.requests import open_request


def peek_device(host: Host, call: Call) -> Device | None:
    """The device that the request names, by its own id or by its terminal id."""
    device_id = call.headers.get("x-device-id")
    if device_id is not None:
        return host.registry.device(device_id)
    return host.registry.terminal(call.headers.get("x-terminal-id", ""))


def peek_amount(host: Host, call: Call) -> int | None:
    """The amount in minor units inside a charge's or a refund's envelope, or None."""
    device = peek_device(host, call)
    if call.name not in PAYMENT_CALLS or device is None:
        return None
    row = host.registry.key_set_by_mac(device.device_id, call.headers.get("x-key-id", ""))
    if row is None:
        return None
    keys = host.hsm.open_key_set(row.key_set_id, row.sealed)
    try:
        opened: Any = open_request(keys, call.body, host.config.max_plaintext)
        return int(opened["amount"]["value"])
    except (Refusal, KeyError, TypeError, ValueError):
        return None
