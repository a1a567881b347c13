"""The simulator's own control interface, under ``/sim/``: for whoever runs it, from this machine only."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct
from starlette.types import Scope

from sim.faults import FaultError, Faults, parse
from sim.host.calls import Answer, Call, decoded, plain_answer
from sim.host.host import Host
from sim.host.ledger import Charge, from_ms, money, to_ms
from sim.host.refusals import Refusal, Why
from sim.host.registry import Device, Merchant
from sim.seed import pick
from terminal.clock import rfc3339
from terminal.crypto.kcv import aes_kcv
from terminal.settings import is_loopback_name

_HEX = "0123456789ABCDEF"
_LOWER = "0123456789abcdef"
_DIGITS = "0123456789"
_TRIES = 100


class ProvisionRequest(Struct, forbid_unknown_fields=True):
    """``POST /sim/devices``: without a ``client_id`` the device gets a merchant of its own."""

    client_id: str | None = None


class DeviceChange(Struct, forbid_unknown_fields=True):
    """``POST /sim/devices/{id}``: what happens to the device from now on."""

    revoked: bool | None = None
    identity_revoked: bool | None = None
    superseded: Literal[True] | None = None
    """Its key sets: the next call under one is told to take new keys."""
    keys_revoked: Literal[True] | None = None
    """Its key sets: their key ids are no longer known."""
    unclaimed: Literal[True] | None = None
    actions: (
        Annotated[
            list[Literal["rotate_keys", "refresh_config", "refresh_parameters", "update"]], Meta(max_length=4)
        ]
        | None
    ) = None
    """What its heartbeats are told, each until it has been done (``update``: until the next change)."""


class SettleRequest(Struct, forbid_unknown_fields=True):
    """``POST /sim/settle``: one charge, or all."""

    charge_id: str | None = None


def check_loopback(scope: Scope) -> None:
    """Refusal 403 unless peer, Host and Origin are all of this machine.

    A web page that a developer visits may reach a port on loopback: by a name that resolves to it (seen in Host),
    or by a form (seen in Origin).
    """
    peer = scope.get("client")
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    origin = headers.get(b"origin", "")
    if not (
        peer
        and is_loopback_name(peer[0])
        and is_loopback_name(_name(headers.get(b"host", "")))
        and (not origin or is_loopback_name(_name(origin.partition("://")[2])))
    ):
        raise Refusal(Why.NOT_YOURS, "/sim/ is open to this machine only.")


def _name(host: str) -> str:
    """The host of ``host[:port]``, brackets off."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def provision(host: Host, call: Call) -> Answer:
    """``POST /sim/devices``: a new device, and the only time that its secrets are shown."""
    _, request = decoded(call.body or b"{}", ProvisionRequest)
    device_id = _free(host, lambda: f"POS-{pick(host.random, _HEX, 8)}")
    terminal_id = _free(host, lambda: f"TID-{pick(host.random, _DIGITS, 6)}")
    client_id, client_secret = _merchant(host, request.client_id)
    secrets, sealed = host.hsm.make_device(device_id)
    identity_key_id = f"idk_{pick(host.random, _LOWER, 16)}"
    host.registry.add_device(Device(device_id, terminal_id, client_id, identity_key_id, sealed))
    return plain_answer(
        {
            "device_id": device_id,
            "terminal_id": terminal_id,
            "identity": {"key_id": identity_key_id, "secret": b64(secrets.identity)},
            "zmk": {"key": secrets.zmk.hex().upper(), "kcv": aes_kcv(secrets.zmk)},
            "merchant": {"client_id": client_id, "client_secret": client_secret},
        },
        201,
    )


def change_device(host: Host, call: Call) -> Answer:
    """``POST /sim/devices/{id}``."""
    _, change = decoded(call.body, DeviceChange)
    device_id = _device(host, call).device_id
    registry = host.registry
    if change.revoked is not None:
        registry.set_revoked(device_id, change.revoked)
    if change.identity_revoked is not None:
        registry.set_identity_revoked(device_id, change.identity_revoked)
    if change.superseded:
        registry.end_key_sets(device_id, "superseded")
    if change.keys_revoked:
        registry.end_key_sets(device_id, "revoked")
    if change.unclaimed:
        registry.unclaim(device_id)
    if change.actions is not None:
        registry.set_actions(device_id, " ".join(change.actions))
    return show_device(host, call)


def show_device(host: Host, call: Call) -> Answer:
    """``GET /sim/devices/{id}``."""
    device = _device(host, call)
    now = to_ms(call.now)
    return plain_answer(
        {
            "device_id": device.device_id,
            "terminal_id": device.terminal_id,
            "device_status": device.status,
            "revoked": bool(device.revoked),
            "identity_revoked": bool(device.identity_revoked),
            "unclaimed": bool(device.unclaimed),
            "actions": device.actions.split(),
            "key_sets": [
                {
                    "key_set_id": row.key_set_id,
                    "state": row.state if row.state != "live" or row.usable(now) else "expired",
                    "expires_at": rfc3339(from_ms(row.expires_at)),
                }
                for row in host.registry.key_sets(device.device_id)
            ],
        }
    )


def ledger(host: Host, call: Call) -> Answer:
    """``GET /sim/ledger``: what the host believes."""
    now = to_ms(call.now)
    return plain_answer({"charges": [_charge(host, charge, now) for charge in host.ledger.charges()]})


def settle(host: Host, call: Call) -> Answer:
    """``POST /sim/settle``: from now on they can be refunded, and no longer cancelled."""
    _, request = decoded(call.body or b"{}", SettleRequest)
    return plain_answer({"settled": host.ledger.settle(to_ms(call.now), request.charge_id)})


def exchanges(host: Host, call: Call) -> Answer:
    """``GET /sim/exchanges?device_id=``."""
    return plain_answer({"exchanges": host.exchanges.public(call.query.get("device_id") or None)})


def set_faults(faults: Faults, call: Call) -> Answer:
    """``POST /sim/faults``: these rules in place of those before, as JSON or (by Content-Type) TOML."""
    try:
        toml = "toml" in call.headers.get("content-type", "")
        faults.replace(parse(call.body, toml=toml, network=faults.network))
    except FaultError as error:
        raise Refusal(Why.MALFORMED, f"{error}.") from None
    return plain_answer(faults.public())


def show_faults(faults: Faults, _call: Call) -> Answer:
    """``GET /sim/faults``."""
    return plain_answer(faults.public())


def clear_faults(faults: Faults, _call: Call) -> Answer:
    """``DELETE /sim/faults``: nothing goes wrong any more."""
    faults.replace([])
    return plain_answer(faults.public())


def b64(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def _charge(host: Host, charge: Charge, now: int) -> dict[str, Any]:
    made = host.ledger.refunds(charge.id)
    refunds = [
        {
            "id": refund.id,
            "amount": money(refund.amount, charge.currency),
            "status": refund.status(now),
            "reason": refund.reason,
            "idempotency_key": refund.idempotency_key,
            "created_at": rfc3339(from_ms(refund.created_at)),
        }
        for refund in made
    ]
    refunded = sum(refund.amount for refund in made if refund.status(now) == "approved")
    return {
        "id": charge.id,
        "terminal_id": charge.terminal_id,
        "idempotency_key": charge.idempotency_key,
        "reference": charge.reference,
        "amount": money(charge.amount, charge.currency),
        "status": charge.status(refunded, now),
        "refunds": refunds,
        "entry_mode": charge.entry_mode,
        "created_at": rfc3339(from_ms(charge.created_at)),
    }


def _device(host: Host, call: Call) -> Device:
    device = host.registry.device(call.id)
    if device is None:
        raise Refusal(Why.UNKNOWN, "The device is unknown.")
    return device


def _free(host: Host, draw: Callable[[], str]) -> str:
    """An id that no device has."""
    for _ in range(_TRIES):
        drawn = draw()
        if host.registry.device(drawn) is None and host.registry.terminal(drawn) is None:
            return drawn
    raise Refusal(Why.TOO_MANY, "There are too many devices.", retry_after=3600)


def _merchant(host: Host, client_id: str | None) -> tuple[str, str]:
    """The API client and its secret: the one that was named, or a new one."""
    if client_id is not None:
        known = host.registry.merchant(client_id)
        if known is None:
            raise Refusal(Why.UNKNOWN, "The merchant is unknown.")
        return client_id, host.hsm.open(f"merchant {client_id}", known.sealed).decode()
    client_id = f"mrc_{pick(host.random, _LOWER, 20)}"
    client_secret = pick(host.random, _LOWER, 48)
    merchant_id = str(UUID(bytes=host.random(16), version=4))
    sealed = host.hsm.seal(f"merchant {client_id}", client_secret.encode())
    host.registry.add_merchant(Merchant(client_id, merchant_id, sealed))
    return client_id, client_secret
