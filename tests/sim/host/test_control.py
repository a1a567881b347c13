"""The simulator's own interface: what it shows, and to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sim.host.config import HostConfig
from sim.host.exchanges import redact
from tests.sim.host.support import TRACK2, Bench

CONTROL = [
    ("POST", "/sim/devices"),
    ("GET", "/sim/devices/POS-00000000"),
    ("GET", "/sim/ledger"),
    ("GET", "/sim/exchanges"),
    ("GET", "/sim/faults"),
    ("POST", "/sim/faults"),
    ("DELETE", "/sim/faults"),
    ("POST", "/sim/settle"),
]


def test_a_new_device() -> None:
    bench = Bench()
    made = bench.ask("POST", "/sim/devices", None, {})
    assert made.status == 201
    document = made.json
    assert set(document) == {"device_id", "terminal_id", "identity", "zmk", "merchant"}
    assert set(document["identity"]) == {"key_id", "secret"}
    assert set(document["zmk"]) == {"key", "kcv"}
    assert set(document["merchant"]) == {"client_id", "client_secret"}
    assert len(document["zmk"]["key"]) == 64
    assert bench.ask("POST", "/sim/devices").status == 201
    assert bench.ask("POST", "/sim/devices", None, {"surprise": 1}).error == (400, "4000")
    assert bench.ask("POST", "/sim/devices", None, {"client_id": "mrc_nobody"}).error == (404, "4040")


@pytest.mark.parametrize(("method", "path"), CONTROL)
@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (("192.0.2.7", 40000), {}),
        (None, {}),
        (("127.0.0.1", 40000), {"Host": "evil.example"}),
        (("127.0.0.1", 40000), {"Host": "evil.example:8000"}),
        (("127.0.0.1", 40000), {"Host": ""}),
        (("127.0.0.1", 40000), {"Host": "127.0.0.1:8000", "Origin": "https://evil.example"}),
        (("127.0.0.1", 40000), {"Host": "127.0.0.1:8000", "Origin": "null"}),
    ],
)
def test_from_this_machine_only(method: str, path: str, peer: Any, headers: dict[str, str]) -> None:
    bench = Bench(peer=peer)
    assert bench.ask(method, path, headers).error == (403, "4030")


@pytest.mark.parametrize(
    ("peer", "name"), [("127.0.0.1", "localhost:1"), ("127.3.2.1", "127.3.2.1"), ("::1", "[::1]:8000")]
)
def test_from_this_machine(peer: str, name: str) -> None:
    bench = Bench(peer=(peer, 40000))
    assert bench.ask("GET", "/sim/ledger", {"Host": name, "Origin": f"http://{name}"}).json == {"charges": []}


def test_the_protocol_is_open_to_others() -> None:
    bench = Bench(peer=("192.0.2.7", 40000))
    assert bench.ask("GET", "/health/live", {"Host": "till.example"}).status == 200


def test_the_ledger_shows_refunds() -> None:
    bench = Bench()
    device = bench.device()
    charge = device.open(device.charge(1000, key="key-1"))
    refund = device.open(device.refund(charge["id"], 400, key="key-2"))
    (shown,) = bench.charges()
    assert shown["status"] == "partially_refunded"
    assert shown["idempotency_key"] == "key-1"
    assert shown["refunds"] == [
        {
            "id": refund["id"],
            "amount": {"value": "400", "currency": "EUR"},
            "status": "approved",
            "reason": "cold coffee",
            "idempotency_key": "key-2",
            "created_at": refund["created_at"],
        }
    ]


def test_a_device_and_what_may_happen_to_it() -> None:
    bench = Bench()
    device = bench.device()
    path = f"/sim/devices/{device.id}"
    shown = bench.ask("GET", path).json
    assert (shown["device_status"], shown["revoked"], shown["actions"]) == ("activated", False, [])
    assert [key_set["state"] for key_set in shown["key_sets"]] == ["live"]
    bench.ask("POST", path, None, {"superseded": True})
    assert bench.ask("GET", path).json["key_sets"][0]["state"] == "superseded"
    for body in ({"superseded": False}, {"reboked": True}, {"actions": ["explode"]}, [], b"x"):
        assert bench.ask("POST", path, None, body).error == (400, "4000")
    assert bench.ask("POST", "/sim/devices/POS-00000000", None, {"revoked": True}).error == (404, "4040")


def test_settling_one() -> None:
    bench = Bench()
    device = bench.device()
    one, two = device.charged(1000), device.charged(1000)
    assert bench.ask("POST", "/sim/settle", None, {"charge_id": one["id"]}).json == {"settled": 1}
    assert device.cancel(one["id"]).status == 409
    assert device.cancel(two["id"]).status == 200


class TestExchanges:
    def test_every_call_in_order(self) -> None:
        bench = Bench()
        device = bench.device()
        other = bench.device(activated=False)
        other.pairing_code()
        shown = bench.ask("GET", f"/sim/exchanges?device_id={device.id}").json["exchanges"]
        fields = {"n", "at", "method", "path", "device_id", "terminal_id", "status", "request", "response"}
        assert all(set(exchange) == fields for exchange in shown)
        assert [exchange["path"] for exchange in shown] == [
            "/pos/bootstrap",
            "/pos/pairing-code",
            "/pos/claim",
            "/pos/attest",
            "/pos/keys",
            "/pos/config",
            "/pos/terminal-parameters",
            "/pos/activate",
        ]
        assert {exchange["terminal_id"] for exchange in shown} == {device.terminal_id}
        everything = bench.ask("GET", "/sim/exchanges").json["exchanges"]
        numbers = [exchange["n"] for exchange in everything]
        assert numbers == list(range(1, len(everything) + 1))
        assert len(everything) > len(shown) + 2

    def test_envelopes_are_open_and_nothing_secret_is_in_them(self) -> None:
        bench = Bench()
        device = bench.device()
        charge = device.open(device.charge(1000, key="key-1"))
        device.open(device.refund(charge["id"], 100))
        device.charge(card={"masked_pan": "4761739001010119", "pan": "4761739001010119"})
        device.charge(entry_mode="chip", emv="5A084761739001010119")
        device.charge(card="4761739001010119")
        raw = bench.ask("GET", "/sim/exchanges").body.decode()
        exchanges = json.loads(raw)["exchanges"]
        paid = next(exchange for exchange in exchanges if exchange["path"] == "/pos/charge")
        assert paid["request"]["amount"] == {"value": "1000", "currency": "EUR"}
        assert paid["request"]["card"] == {
            "masked_pan": "476173******0119",
            "expiry": "2812",
            "track2": "***",
        }
        assert paid["response"] == charge
        keys = next(exchange for exchange in exchanges if exchange["path"] == "/pos/keys")
        assert keys["response"]["keys"]["msk"]["key_block"] == "***"
        assert keys["response"]["keys"]["msk"]["kcv"]
        secrets = [device.token, device.document["merchant"]["client_secret"], "4761739001010119"]
        secrets += [TRACK2.hex(), TRACK2.hex().upper()]
        for secret in secrets:
            assert secret not in raw
        assert "eyJ" not in raw

    def test_refusals_too(self) -> None:
        bench = Bench()
        bench.ask("POST", "/pos/bootstrap")
        (shown,) = bench.ask("GET", "/sim/exchanges").json["exchanges"]
        assert shown["status"] == 400
        assert shown["response"]["error"]["code"] == "4000"

    def test_they_are_bounded(self) -> None:
        bench = Bench(config=HostConfig(max_exchanges=3))
        for _ in range(5):
            bench.ask("GET", "/health/live")
        shown = bench.ask("GET", "/sim/exchanges").json["exchanges"]
        assert [exchange["n"] for exchange in shown] == [3, 4, 5]

    def test_redaction_holds_at_any_depth(self) -> None:
        deep: Any = {"pan": "secret"}
        for _ in range(40):
            deep = {"a": [deep]}
        assert "secret" not in str(redact(deep))
        assert redact({"a": list(range(100))}) == {"a": [0, 1, 2, 3, 4, 5, 6, 7, "and 92 more"]}
        assert redact({"a": "x" * 5000}) == {"a": "5000 characters"}
