"""What each kind of fault does at the host itself: to the request, to the device it knows, to what it seals."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from sim.faults import PLACE, FaultError, Place, parse
from sim.host.wire import ConnectionCut
from terminal.crypto import keyblock
from terminal.errors import KeyBlockError
from tests.sim.host.support import Bench, Device


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def device(bench: Bench) -> Device:
    return bench.device()


SAMPLES: dict[str, dict[str, Any]] = {
    "delay": {"seconds": 1},
    "status": {"status": 503},
    "drip": {"seconds": 1},
    "clock": {"seconds": 1},
    "late_approval": {"seconds": 1},
    "outage": {"seconds": 1},
    "reorder": {"seconds": 1},
    "power_cut": {"when": "before"},
}
"""What a kind needs besides its word."""


class TestPlaces:
    @pytest.mark.parametrize("kind", sorted(PLACE))
    def test_what_a_network_does_a_host_alone_refuses_and_says_so(self, bench: Bench, kind: str) -> None:
        rule = {"do": kind, **SAMPLES.get(kind, {})}
        reply = bench.faults(rule)
        if PLACE[kind] is Place.HOST:
            assert reply.status == 200
        else:
            assert reply.error == (400, "4000")
            assert f"rules[0]: '{kind}' is done by the network of a simulated world" in reply.message
        assert len(parse(json.dumps({"rules": [rule]}), network=True)) == 1

    def test_where_it_is_refused_nothing_changes(self, bench: Bench) -> None:
        bench.faults({"do": "cut"})
        bench.faults({"do": "cut"}, {"do": "unreachable"})
        assert bench.ask("GET", "/sim/faults").json["rules"] == [{"do": "cut"}]


class TestMatchingACard:
    @pytest.mark.parametrize(
        ("card", "hit"),
        [("4", True), ("476173", True), ("visa", True), ("5", False), ("476174", False), ("mastercard", False)],
    )
    def test_by_its_first_digits_or_its_network(self, bench: Bench, device: Device, card: str, hit: bool) -> None:
        bench.faults({"do": "status", "status": 503, "match": {"card": card}})
        assert device.charge().status == (503 if hit else 200)

    @pytest.mark.parametrize("card", ["", "4761739", "Visa", "nobody", "visa-", 4])
    def test_what_is_neither_is_refused(self, card: Any) -> None:
        with pytest.raises(FaultError, match="card"):
            parse(json.dumps({"rules": [{"do": "cut", "match": {"card": card}}]}))

    def test_only_a_charge_has_one(self, bench: Bench, device: Device) -> None:
        with pytest.raises(FaultError, match=r"rules\[0\].match.card: 'refund' has no card"):
            parse(b'{"rules": [{"do": "cut", "match": {"card": "4", "call": "refund"}}]}')
        bench.faults({"do": "status", "status": 503, "match": {"card": "visa"}})
        assert bench.ask("POST", "/pos/bootstrap", device.activation()).status == 200


class TestTheRequest:
    def test_a_byte_of_it_changed(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "corrupt_request", "at": 20, "match": {"call": "charge"}})
        assert device.charge().error == (401, "4010")
        assert bench.charges() == []

    def test_a_signature_that_does_not_fit(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "wrong_mac", "match": {"nth": 1}})
        assert device.charge().error == (401, "4010")
        assert device.charge().status == 200

    @pytest.mark.parametrize("kind", ["drop_request", "drop_answer"])
    def test_silence_lasts_until_the_caller_goes(self, bench: Bench, device: Device, kind: str) -> None:
        bench.faults({"do": kind, "how": "silence"})
        assert device.charge().status == 0
        assert len(bench.charges()) == (1 if kind == "drop_answer" else 0)


class TestTheAnswer:
    def test_drop_by_drop(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "drip", "seconds": 0.5, "size": 100})
        before = bench.clock.moment
        reply = device.charge()
        assert device.open(reply)["status"] == "approved"
        assert (bench.clock.moment - before).total_seconds() == 0.5 * -(-len(reply.body) // 100)

    def test_key_blocks_with_wrong_macs(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "wrong_mac"})
        answer = bench.ask("POST", "/pos/keys", device.attestation())
        block = base64.b64decode(answer.json["keys"]["tmk"]["key_block"]).decode()
        zmk = bytes.fromhex(device.document["zmk"]["key"])
        with pytest.raises(KeyBlockError):
            keyblock.unwrap(zmk, block)
        bench.ask("DELETE", "/sim/faults")
        answer = bench.ask("POST", "/pos/keys", device.attestation())
        keyblock.unwrap(zmk, base64.b64decode(answer.json["keys"]["tmk"]["key_block"]).decode())

    def test_a_charge_id_that_is_nobodys(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "other_charge_id"})
        told = device.open(device.charge())["id"]
        (charge,) = bench.charges()
        assert told != charge["id"]
        assert told.startswith("ch_")

    def test_the_id_of_an_earlier_charge(self, bench: Bench, device: Device) -> None:
        earlier = device.open(device.charge())["id"]
        bench.faults({"do": "old_charge_id"})
        assert device.open(device.charge())["id"] == earlier
        later = bench.charges()[-1]["id"]
        refund = device.seal({"amount": {"value": "1", "currency": "EUR"}, "reason": "r"})
        answer = device.open(device.post(f"/pos/charge/{later}/refund", refund))
        assert answer["charge_id"] == earlier
        assert answer["id"].startswith("rf_")

    def test_the_first_charge_has_no_earlier_one(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "old_charge_id"})
        assert device.open(device.charge())["id"] != bench.charges()[0]["id"]

    def test_in_a_list_of_charges_each(self, bench: Bench, device: Device) -> None:
        charge = device.open(device.charge())
        bench.faults({"do": "other_amount", "match": {"call": "charge_search"}})
        path = f"/pos/charge?reference={charge['reference']}"
        (found,) = device.open(bench.ask("GET", path, device.signed()))["charges"]
        assert int(found["amount"]["value"]) == int(charge["amount"]["value"]) + 1


class TestA5xxThatTheKeyStandsFor:
    @pytest.mark.parametrize("acted", [True, False])
    def test_is_repeated_and_the_charge_is_there_or_not(self, bench: Bench, device: Device, acted: bool) -> None:
        bench.faults({"do": "cached_5xx", "acted": acted})
        body = device.seal(device.order())
        first = device.post("/pos/charge", body, "key-1")
        bench.ask("DELETE", "/sim/faults")
        again = device.post("/pos/charge", body, "key-1")
        assert first.error == again.error == (500, "5000")
        assert len(bench.charges()) == int(acted)
        assert device.post("/pos/charge", body, "key-2").status == 200

    def test_without_a_key_it_is_a_500_once(self, bench: Bench, device: Device) -> None:
        charge = device.open(device.charge())["id"]
        bench.faults({"do": "cached_5xx", "match": {"times": 1}})
        assert device.cancel(charge).error == (500, "5000")
        assert bench.charges()[0]["status"] == "canceled"
        assert device.cancel(charge).status == 200


class TestALateApproval:
    def test_is_pending_meanwhile_and_held_back(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "late_approval", "seconds": 20, "match": {"times": 1}})
        before = bench.clock.moment
        assert device.open(device.charge())["status"] == "approved"
        assert (bench.clock.moment - before).total_seconds() == 20
        assert bench.charges()[0]["status"] == "approved"

    def test_says_approved_even_where_it_was_canceled_meanwhile(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "late_approval", "seconds": 20, "match": {"call": "charge"}})
        body = device.seal(device.order())
        statuses = []

        async def both() -> Any:
            asking = asyncio.create_task(
                bench.call("POST", "/pos/charge", {**device.signed(body), "Idempotency-Key": "k"}, body)
            )
            await asyncio.sleep(5)
            (charge,) = bench.app.host.ledger.charges()
            cancel = await bench.call("POST", f"/pos/charge/{charge.id}/cancel", device.signed())
            statuses.append(device.open(cancel)["status"])
            return await asking

        assert device.open(bench.run(both))["status"] == "approved"
        assert statuses == ["canceled"]
        assert bench.charges()[0]["status"] == "canceled"

    def test_a_declined_charge_is_declined_at_once(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "late_approval", "seconds": 20})
        before = bench.clock.moment
        assert device.open(device.charge(1251))["status"] == "declined"
        assert bench.clock.moment == before


class TestWhatTheHostKnowsOfADevice:
    def test_a_token_that_has_expired(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "expired_token", "match": {"times": 1}})
        assert bench.ask("POST", "/pos/keys", device.attestation()).error == (401, "4010")
        assert bench.ask("POST", "/pos/keys", device.attestation()).error == (401, "4010")
        device.attest()
        assert bench.ask("POST", "/pos/keys", device.attestation()).status == 200

    def test_the_tokens_of_a_device_that_pays(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "expired_token", "match": {"call": "charge"}})
        assert device.charge().status == 200
        assert bench.ask("POST", "/pos/keys", device.attestation()).error == (401, "4010")

    def test_keys_that_are_superseded_until_there_are_new_ones(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "rotated_keys", "match": {"nth": 1}})
        assert [device.charge().error for _ in range(2)] == [(401, "4011")] * 2
        device.take_keys()
        assert device.charge().status == 200

    def test_revoked_for_a_while(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "revoked_device", "seconds": 60, "match": {"nth": 1}})
        assert device.charge().error == (403, "4031")
        bench.clock.advance(59)
        assert device.charge().error == (403, "4031")
        bench.clock.advance(1)
        assert device.charge().status == 200

    def test_revoked_for_good(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "revoked_device", "match": {"nth": 1}})
        assert device.charge().error == (403, "4031")
        bench.clock.advance(10**6)
        assert device.charge().error == (403, "4031")

    def test_unclaimed(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "unclaimed_device", "match": {"nth": 1}})
        assert device.charge().error == (403, "4031")
        status = bench.ask("GET", "/pos/status", device.activation()).json
        assert (status["device_status"], status["is_claimed"]) == ("inactive", False)

    def test_a_call_of_nobody_changes_nothing(self, bench: Bench, device: Device) -> None:
        for kind in ("rotated_keys", "revoked_device", "unclaimed_device", "expired_token"):
            bench.faults({"do": kind, "match": {"call": "health"}})
            assert bench.ask("GET", "/health/live").status == 200
        bench.ask("DELETE", "/sim/faults")
        assert device.charge().status == 200


def test_what_was_done_is_counted_by_kind_and_by_rule(bench: Bench, device: Device) -> None:
    bench.faults({"do": "drop_answer", "match": {"call": "charge", "nth": 1}}, {"do": "rotated_keys"})
    with pytest.raises(ConnectionCut):
        device.charge()
    device.charge()
    shown = bench.ask("GET", "/sim/faults").json
    assert (shown["seen"], shown["fired"]) == ([2, 1], [1, 1])
    assert shown["by_kind"] == {"drop_answer": 1, "rotated_keys": 1}
    bench.faults({"do": "rotated_keys"})
    device.charge()
    shown = bench.ask("GET", "/sim/faults").json
    assert (shown["fired"], shown["by_kind"]) == ([1], {"drop_answer": 1, "rotated_keys": 2})
