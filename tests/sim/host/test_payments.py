"""Charges, refunds, cancels, lookups and heartbeats, and every refusal among them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sim.host.config import HostConfig
from sim.host.outcomes import BY_LAST_DIGITS, network
from terminal.clock import rfc3339
from terminal.crypto import envelope
from terminal.crypto.pinblock import iso4_pin_block
from terminal.crypto.signature import Scheme
from tests.sim.host.support import TRACK2, Bench, Device

BAD_REQUEST, CREDENTIALS = (400, "4000"), (401, "4010")
BLOCKED, UNKNOWN, CONFLICT, RULE = (403, "4031"), (404, "4040"), (409, "4090"), (422, "4220")
REUSED = "Idempotency key reused with a different request body."
ELSEWHERE = "Idempotency key already used for a different endpoint."


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def device(bench: Bench) -> Device:
    return bench.device()


def eur(minor: int) -> dict[str, str]:
    return {"value": str(minor), "currency": "EUR"}


def test_a_charge(device: Device) -> None:
    answer = device.charged(1250)
    assert answer == {
        "id": answer["id"],
        "status": "approved",
        "amount": eur(1250),
        "reference": "order-17",
        "authorization_code": answer["authorization_code"],
        "response_code": "00",
        "emv": "",
        "message": "",
        "created_at": rfc3339(device.bench.clock()),
        "gateway": {"network": "visa", "rrn": answer["gateway"]["rrn"]},
    }
    assert answer["id"].startswith("ch_")
    assert len(answer["id"]) == 15
    assert device.bench.charges() == [
        {
            "id": answer["id"],
            "terminal_id": device.terminal_id,
            "idempotency_key": None,
            "reference": "order-17",
            "amount": eur(1250),
            "status": "approved",
            "refunds": [],
            "entry_mode": "swipe",
            "created_at": answer["created_at"],
        }
    ]


class TestOutcomes:
    @pytest.mark.parametrize(
        ("ending", "code"),
        [
            ("01", "01"), ("05", "05"), ("14", "14"), ("41", "41"), ("43", "43"), ("51", "51"),
            ("54", "54"), ("55", "55"), ("61", "61"), ("65", "65"), ("91", "91"),
        ],
    )  # fmt: skip
    def test_declined(self, device: Device, ending: str, code: str) -> None:
        answer = device.charged(int(f"12{ending}"))
        assert (answer["status"], answer["response_code"]) == ("declined", code)
        assert answer["amount"] == eur(int(f"12{ending}"))
        assert answer["authorization_code"] == ""
        assert device.refund(answer["id"], 1).error == CONFLICT
        assert device.cancel(answer["id"]).error == CONFLICT
        assert device.status(answer["id"]) == "declined"

    def test_everything_else_is_approved(self, device: Device) -> None:
        for ending in set(range(100)) - set(BY_LAST_DIGITS):
            answer = device.charged(300 + ending)
            assert (answer["status"], answer["response_code"]) == ("approved", "00")

    def test_approved_in_part(self, device: Device) -> None:
        answer = device.charged(1030)
        assert (answer["status"], answer["response_code"]) == ("approved", "10")
        assert answer["amount"] == eur(515)
        assert device.refund(answer["id"], 516).error == RULE
        assert device.refund(answer["id"], 515).status == 200

    def test_pending_then_approved(self, device: Device) -> None:
        answer = device.charged(1040)
        assert (answer["status"], answer["response_code"]) == ("pending", "09")
        assert answer["authorization_code"] == ""
        assert device.refund(answer["id"], 1).error == CONFLICT
        device.bench.clock.advance(4.9)
        assert device.status(answer["id"]) == "pending"
        device.bench.clock.advance(0.1)
        later = device.open(device.get(f"/pos/charge/{answer['id']}"))
        assert (later["status"], later["response_code"]) == ("approved", "00")
        assert len(later["authorization_code"]) == 6

    def test_a_pending_charge_can_be_cancelled(self, device: Device) -> None:
        answer = device.charged(1040)
        assert device.cancel(answer["id"]).status == 200
        device.bench.clock.advance(10)
        assert device.status(answer["id"]) == "canceled"

    def test_a_refund_that_fails_later(self, device: Device) -> None:
        charge = device.charged(1045)
        refund = device.open(device.refund(charge["id"], 1045))
        assert refund["status"] == "approved"
        assert device.status(charge["id"]) == "refunded"
        device.bench.clock.advance(59.9)
        assert device.open(device.get(f"/pos/refund/{refund['id']}"))["status"] == "approved"
        device.bench.clock.advance(0.1)
        assert device.open(device.get(f"/pos/refund/{refund['id']}")) == {**refund, "status": "failed"}
        assert device.status(charge["id"]) == "approved"
        assert device.bench.charges()[0]["refunds"][0]["status"] == "failed"
        assert device.refund(charge["id"], 1045).status == 200

    def test_approved_after_eight_seconds(self, device: Device) -> None:
        before = device.bench.clock.moment
        answer = device.charged(1008)
        assert answer["status"] == "approved"
        assert (device.bench.clock.moment - before).total_seconds() == pytest.approx(8)

    def test_a_retry_of_a_slow_one_waits_for_the_rest_of_it(self, device: Device) -> None:
        bench = device.bench
        body = device.seal(device.order(1008))

        async def both() -> Any:
            start = bench.clock.moment
            first = asyncio.create_task(bench.call("POST", "/pos/charge", keyed(device, body, "k"), body))
            await asyncio.sleep(3)
            second = await bench.call("POST", "/pos/charge", keyed(device, body, "k"), body)
            return await first, second, (bench.clock.moment - start).total_seconds()

        first, second, seconds = bench.run(both)
        assert device.open(first) == device.open(second)
        assert seconds == pytest.approx(8)
        assert len(bench.charges()) == 1


def keyed(device: Device, body: bytes, key: str) -> dict[str, str]:
    return {**device.signed(body), "Idempotency-Key": key}


class TestIdempotency:
    def test_the_same_answer_again(self, device: Device) -> None:
        body = device.seal(device.order())
        first = device.open(device.post("/pos/charge", body, "key-1"))
        device.bench.clock.advance(60)
        assert device.open(device.post("/pos/charge", body, "key-1")) == first
        assert [charge["idempotency_key"] for charge in device.bench.charges()] == ["key-1"]

    def test_even_under_the_next_key_set(self, device: Device) -> None:
        body = device.seal(device.order())
        first = device.open(device.post("/pos/charge", body, "key-1"))
        device.take_keys()
        assert device.open(device.post("/pos/charge", body, "key-1")) == first
        assert len(device.bench.charges()) == 1

    def test_another_body_or_endpoint(self, device: Device) -> None:
        charge = device.open(device.charge(key="key-1"))
        reply = device.charge(key="key-1")
        assert (reply.error, reply.message) == (CONFLICT, REUSED)
        reply = device.refund(charge["id"], 100, key="key-1")
        assert (reply.error, reply.message) == (CONFLICT, ELSEWHERE)
        assert len(device.bench.charges()) == 1

    def test_matched_before_anything_is_opened(self, device: Device) -> None:
        device.charge(key="key-1")
        reply = device.post("/pos/charge", b"not an envelope", "key-1")
        assert (reply.error, reply.message) == (CONFLICT, REUSED)

    def test_and_after_authentication(self, device: Device) -> None:
        body = device.seal(device.order())
        device.post("/pos/charge", body, "key-1")
        headers = keyed(device, b"another body", "key-1")
        assert device.bench.ask("POST", "/pos/charge", headers, body).error == CREDENTIALS

    def test_forgotten_after_a_day(self, device: Device) -> None:
        body = device.seal(device.order())
        device.post("/pos/charge", body, "key-1")
        device.bench.clock.advance(24 * 3600 - 1)
        assert device.post("/pos/charge", body, "key-1").status == 200
        assert len(device.bench.charges()) == 1
        device.bench.clock.advance(1)
        device.attest()
        device.take_keys()
        assert device.charge(key="key-1").status == 200
        assert len(device.bench.charges()) == 2

    def test_two_terminals_with_the_same_key(self, bench: Bench) -> None:
        one, two = bench.device(), bench.device()
        assert one.open(one.charge(key="key-1"))["id"] != two.open(two.charge(key="key-1"))["id"]

    def test_a_refund(self, device: Device) -> None:
        charge = device.charged(1000)
        body = device.seal({"amount": eur(600), "reason": ""})
        path = f"/pos/charge/{charge['id']}/refund"
        first = device.open(device.post(path, body, "key-2"))
        assert device.open(device.post(path, body, "key-2")) == first
        (shown,) = device.bench.charges()
        assert [refund["amount"] for refund in shown["refunds"]] == [eur(600)]
        other = device.charged(1000)
        reply = device.post(f"/pos/charge/{other['id']}/refund", body, "key-2")
        assert (reply.error, reply.message) == (CONFLICT, ELSEWHERE)

    def test_a_judgement_is_kept_and_a_mistake_is_not(self, device: Device) -> None:
        zero = device.seal(device.order(0))
        assert device.post("/pos/charge", zero, "key-1").error == RULE
        assert device.post("/pos/charge", zero, "key-1").error == RULE
        assert device.charge(key="key-1").message == REUSED
        assert device.post("/pos/charge", b"{}", "key-2").error == BAD_REQUEST
        assert device.charge(key="key-2").status == 200

    @pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
    def test_a_malformed_key(self, device: Device, key: str) -> None:
        assert device.charge(key=key).error == BAD_REQUEST
        assert device.bench.charges() == []

    def test_two_at_once_act_once(self, device: Device) -> None:
        bench = device.bench
        body = device.seal(device.order())

        async def all_at_once() -> Any:
            calls = [bench.call("POST", "/pos/charge", keyed(device, body, "k"), body) for _ in range(8)]
            return await asyncio.gather(*calls)

        replies = bench.run(all_at_once)
        assert len({device.open(reply)["id"] for reply in replies}) == 1
        assert len(bench.charges()) == 1


class TestRefund:
    def test_partial_then_full(self, device: Device) -> None:
        charge = device.charged(1000)
        refund = device.open(device.refund(charge["id"], 400))
        assert refund == {
            "id": refund["id"],
            "charge_id": charge["id"],
            "status": "approved",
            "amount": eur(400),
            "created_at": rfc3339(device.bench.clock()),
        }
        assert refund["id"].startswith("rf_")
        assert device.status(charge["id"]) == "partially_refunded"
        assert device.refund(charge["id"], 601).error == RULE
        assert device.refund(charge["id"], 600).status == 200
        assert device.status(charge["id"]) == "refunded"
        assert device.refund(charge["id"], 1).error == RULE
        assert device.cancel(charge["id"]).error == CONFLICT

    def test_never_above_what_is_left_when_many_come_at_once(self, device: Device) -> None:
        bench = device.bench
        charge = device.charged(1000)
        path = f"/pos/charge/{charge['id']}/refund"

        async def all_at_once() -> Any:
            bodies = [device.seal({"amount": eur(300), "reason": str(n)}) for n in range(8)]
            calls = [bench.call("POST", path, keyed(device, body, f"k{n}"), body) for n, body in enumerate(bodies)]
            return await asyncio.gather(*calls)

        statuses = sorted(reply.status for reply in bench.run(all_at_once))
        assert statuses == [200] * 3 + [422] * 5
        (shown,) = bench.charges()
        assert sum(int(refund["amount"]["value"]) for refund in shown["refunds"]) == 900

    def test_another_currency(self, device: Device) -> None:
        charge = device.charged(1000)
        assert device.refund(charge["id"], 1, amount={"value": "1", "currency": "USD"}).error == RULE

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"amount": eur(0)}, RULE),
            ({"amount": {"value": "100", "currency": "ZZZ"}}, RULE),
            ({"amount": {"value": 100, "currency": "EUR"}}, BAD_REQUEST),
            ({"amount": {"value": "1.00", "currency": "EUR"}}, BAD_REQUEST),
            ({"amount": None}, BAD_REQUEST),
            ({"reason": 7}, BAD_REQUEST),
        ],
    )
    def test_a_wrong_one(self, device: Device, change: Any, expected: tuple[int, str]) -> None:
        charge = device.charged(1000)
        assert device.refund(charge["id"], 100, **change).error == expected

    def test_of_what_is_not_there(self, device: Device) -> None:
        assert device.refund("ch_nothing", 100).error == UNKNOWN
        assert device.get("/pos/refund/rf_nothing").error == UNKNOWN


class TestCancel:
    @pytest.mark.parametrize("how", ["cancel", "reverse"])
    def test_and_again(self, device: Device, how: str) -> None:
        charge = device.charged(1000)
        first = device.open(device.cancel(charge["id"], how))
        assert first == {
            "id": charge["id"],
            "status": "canceled",
            "canceled_at": rfc3339(device.bench.clock()),
        }
        device.bench.clock.advance(30)
        assert device.open(device.cancel(charge["id"])) == first
        assert device.open(device.cancel(charge["id"], "reverse")) == first
        assert device.refund(charge["id"], 1).error == CONFLICT

    def test_after_settlement(self, device: Device) -> None:
        charge = device.charged(1000)
        assert device.bench.ask("POST", "/sim/settle").json == {"settled": 1}
        reply = device.cancel(charge["id"])
        assert reply.error == CONFLICT
        assert reply.json["error"]["details"] == {"refund": f"/pos/charge/{charge['id']}/refund"}
        assert device.refund(charge["id"], 1000).status == 200

    def test_after_settlement_by_age(self) -> None:
        bench = Bench(config=HostConfig(settle_after=3600))
        device = bench.device()
        early, late = device.charged(1000), device.charged(1000)
        bench.clock.advance(3599)
        assert device.cancel(early["id"]).status == 200
        bench.clock.advance(1)
        assert device.cancel(late["id"]).error == CONFLICT

    def test_a_partly_refunded_one(self, device: Device) -> None:
        charge = device.charged(1000)
        device.refund(charge["id"], 1)
        assert device.cancel(charge["id"]).error == CONFLICT

    def test_what_is_not_there(self, device: Device) -> None:
        assert device.cancel("ch_nothing").error == UNKNOWN


class TestIsolation:
    def test_another_terminals_charge_does_not_exist(self, bench: Bench) -> None:
        one, two = bench.device(), bench.device()
        charge = one.charged(1000)
        refund = one.open(one.refund(charge["id"], 100))
        assert two.get(f"/pos/charge/{charge['id']}").error == UNKNOWN
        assert two.get(f"/pos/refund/{refund['id']}").error == UNKNOWN
        assert two.refund(charge["id"], 100).error == UNKNOWN
        assert two.cancel(charge["id"]).error == UNKNOWN
        assert two.open(two.get("/pos/charge?reference=order-17")) == {"charges": []}
        assert one.status(charge["id"]) == "partially_refunded"

    def test_another_terminals_key(self, bench: Bench) -> None:
        one, two = bench.device(), bench.device()
        reply = two.post("/pos/charge", b"{}", key_id=one.key_ids["mac"])
        assert reply.error == CREDENTIALS
        assert one.post("/pos/charge", b"{}", terminal_id=two.terminal_id).error == CREDENTIALS


class TestLookup:
    def test_by_id_and_by_reference(self, device: Device) -> None:
        first, other = device.charged(1000), device.charged(1100, reference="order-18")
        second = device.charged(1200)
        assert device.open(device.get(f"/pos/charge/{first['id']}")) == first
        assert device.open(device.get("/pos/charge?reference=order-17")) == {"charges": [first, second]}
        assert device.open(device.get("/pos/charge?reference=order-18")) == {"charges": [other]}
        assert device.open(device.get("/pos/charge?reference=none")) == {"charges": []}
        assert device.get("/pos/charge").error == BAD_REQUEST
        assert device.get("/pos/charge/ch_nothing").error == UNKNOWN

    def test_where_the_host_offers_none(self) -> None:
        device = Bench(config=HostConfig(offers_lookup=False)).device()
        charge = device.charged()
        for path in (f"/pos/charge/{charge['id']}", "/pos/charge?reference=order-17", "/pos/refund/rf_1"):
            assert device.get(path).error == UNKNOWN


class TestHeartbeat:
    BEAT = {"uptime_sec": 5, "pending": 0, "version": "1.2.3"}  # noqa: RUF012

    def beat(self, device: Device) -> Any:
        return device.open(device.post("/pos/heartbeat", device.seal(self.BEAT)))

    def test_nothing_to_do(self, device: Device) -> None:
        assert self.beat(device) == {"server_time": rfc3339(device.bench.clock()), "actions": []}

    def test_what_it_is_told_until_it_is_done(self, device: Device) -> None:
        body = {"actions": ["refresh_config", "rotate_keys"]}
        device.bench.ask("POST", f"/sim/devices/{device.id}", None, body)
        assert self.beat(device)["actions"] == ["refresh_config", "rotate_keys"]
        device.take_keys()
        assert self.beat(device)["actions"] == ["refresh_config"]
        device.bench.ask("POST", "/pos/config", device.attestation())
        assert self.beat(device)["actions"] == []

    def test_keys_that_end_soon(self, device: Device) -> None:
        device.bench.clock.advance(23 * 3600)
        assert self.beat(device)["actions"] == ["rotate_keys"]

    @pytest.mark.parametrize("change", [{"uptime_sec": -1}, {"pending": "0"}, {"version": None}])
    def test_a_wrong_one(self, device: Device, change: Any) -> None:
        assert device.post("/pos/heartbeat", device.seal({**self.BEAT, **change})).error == BAD_REQUEST


PAYMENT_CALLS = [
    ("POST", "/pos/charge"),
    ("POST", "/pos/charge/ch_1/refund"),
    ("POST", "/pos/charge/ch_1/cancel"),
    ("POST", "/pos/charge/ch_1/reverse"),
    ("POST", "/pos/heartbeat"),
    ("GET", "/pos/charge/ch_1"),
    ("GET", "/pos/charge"),
    ("GET", "/pos/refund/rf_1"),
]


@pytest.mark.parametrize(("method", "path"), PAYMENT_CALLS)
class TestHmac:
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("X-Terminal-Id", None, BAD_REQUEST),
            ("X-Terminal-Id", "TID-000000", UNKNOWN),
            ("User-Agent", None, BAD_REQUEST),
            ("User-Agent", "python-httpx/0.28", BAD_REQUEST),
            ("User-Agent", "Viopay-POS/0.0.1 (Linux; Tillwright)", (426, "4260")),
            ("X-Client-Type", None, BAD_REQUEST),
            ("X-Key-Id", None, BAD_REQUEST),
            ("X-Key-Id", "mac_unknown", CREDENTIALS),
            ("X-Timestamp", None, BAD_REQUEST),
            ("X-Timestamp", "2025-12-13T14:20:29Z", CREDENTIALS),
            ("X-Timestamp", "2025-12-13T14:26:31Z", CREDENTIALS),
            ("X-Nonce", None, BAD_REQUEST),
            ("X-Nonce", "tooshort", BAD_REQUEST),
            ("X-Nonce", "ADIFFERENTNONCE", CREDENTIALS),
            ("X-Signature", None, BAD_REQUEST),
            ("X-Signature", "v1=" + "A" * 43 + "=", CREDENTIALS),
        ],
    )
    def test_a_header(
        self, device: Device, method: str, path: str, name: str, value: str | None, expected: tuple[int, str]
    ) -> None:
        headers = {k: v for k, v in device.signed().items() if k != name}
        if value is not None:
            headers[name] = value
        assert device.bench.ask(method, path, headers).error == expected

    def test_a_body_that_was_not_signed(self, device: Device, method: str, path: str) -> None:
        assert device.bench.ask(method, path, device.signed(b"one"), b"two").error == CREDENTIALS

    def test_the_other_scheme(self, device: Device, method: str, path: str) -> None:
        assert device.bench.ask(method, path, device.signed(b"x", scheme=Scheme.BODY), b"x").error == CREDENTIALS

    def test_a_replay(self, device: Device, method: str, path: str) -> None:
        headers = device.signed()
        assert device.bench.ask(method, path, headers).status in (400, 404)
        assert device.bench.ask(method, path, headers).error == CREDENTIALS

    def test_a_device_that_is_revoked_or_not_activated(
        self, bench: Bench, device: Device, method: str, path: str
    ) -> None:
        fresh = bench.device(activated=False)
        fresh.claim()
        fresh.attest()
        fresh.take_keys()
        assert bench.ask(method, path, fresh.signed()).error == CONFLICT
        bench.ask("POST", f"/sim/devices/{device.id}", None, {"revoked": True})
        assert bench.ask(method, path, device.signed()).error == BLOCKED


def test_the_scheme_that_signs_the_body_alone() -> None:
    """Under it two cancels have the same signature, and only the nonce tells them apart."""
    bench = Bench(config=HostConfig(signature_scheme=Scheme.BODY))
    device = bench.device()
    body = device.seal(device.order())
    assert bench.ask("POST", "/pos/charge", device.signed(body, scheme=Scheme.BODY), body).status == 200
    assert bench.ask("POST", "/pos/charge", device.signed(body), body).error == CREDENTIALS
    one, two = device.signed(scheme=Scheme.BODY), device.signed(scheme=Scheme.BODY)
    assert one["X-Signature"] == two["X-Signature"]
    assert one["X-Nonce"] != two["X-Nonce"]


class TestChargeRequest:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"amount": eur(0)}, RULE),
            ({"amount": eur(-5)}, RULE),
            ({"amount": eur(10**12)}, RULE),
            ({"amount": {"value": "100", "currency": "XXX"}}, RULE),
            ({"amount": {"value": "100", "currency": "euro"}}, RULE),
            ({"amount": {"value": 100, "currency": "EUR"}}, BAD_REQUEST),
            ({"amount": {"value": "", "currency": "EUR"}}, BAD_REQUEST),
            ({"amount": {"value": "12.50", "currency": "EUR"}}, BAD_REQUEST),
            ({"amount": {"value": "100"}}, BAD_REQUEST),
            ({"amount": None}, BAD_REQUEST),
            ({"reference": None}, BAD_REQUEST),
            ({"reference": ""}, BAD_REQUEST),
            ({"entry_mode": None}, BAD_REQUEST),
            ({"entry_mode": "telepathy"}, BAD_REQUEST),
            ({"card": None}, BAD_REQUEST),
            ({"card": {"masked_pan": "4761739001010119"}}, BAD_REQUEST),
            ({"card": {"masked_pan": "476173******0119"}}, BAD_REQUEST),
            ({"card": {"masked_pan": "476173******0119", "track2": {"format": "x"}}}, BAD_REQUEST),
            ({"emv": "8A023030"}, RULE),
            ({"emv": "57114761", "entry_mode": "chip"}, BAD_REQUEST),
            ({"emv": "5A084761739001010119", "entry_mode": "chip"}, RULE),
            ({"emv": "9F6B0112", "entry_mode": "contactless"}, RULE),
            ({"emv": "700A5A084761739001010119", "entry_mode": "chip"}, RULE),
            ({"emv": "xyz", "entry_mode": "chip"}, BAD_REQUEST),
            ({"fallback": True, "entry_mode": "chip"}, RULE),
            ({"tip": {"value": "100", "currency": "USD"}}, RULE),
            ({"tip": eur(1250)}, RULE),
            ({"pin": {"format": "ISO-3", "block": "00" * 16}}, BAD_REQUEST),
            ({"pin": {"format": "ISO-4", "block": "00" * 16}}, BAD_REQUEST),
            ({"pin": {"format": "ISO-4", "block": "00" * 16, "key_kcv": "000000"}}, BAD_REQUEST),
            ({"offline": {}}, BAD_REQUEST),
            ({"reference": "x" * 257}, BAD_REQUEST),
            ({"surprise": "x" * 2000}, RULE),
        ],
    )
    def test_a_wrong_one(self, device: Device, change: Any, expected: tuple[int, str]) -> None:
        assert device.charge(**change).error == expected
        assert device.bench.charges() == []

    def test_chip_with_everything(self, device: Device) -> None:
        pan = TRACK2.hex().split("d")[0]
        block = iso4_pin_block(device.keys["tpk"], "1234", pan, device.bench.random)
        order = device.order(
            entry_mode="chip",
            emv="9F2608" + "11" * 8 + "9F270180" + "82025800",
            pin={"format": "ISO-4", "block": block.hex().upper()},
            tip=eur(100),
            offline={"approved_at": "2025-12-13T14:20:00Z"},
        )
        answer = device.open(device.post("/pos/charge", device.seal(order)))
        assert answer["emv"] == "8A023030"
        assert device.bench.charges()[0]["entry_mode"] == "chip"

    def test_manual(self, device: Device) -> None:
        sealed = envelope.seal(device.keys["tdk"], b"5413330089020011", device.bench.random)
        card = {"masked_pan": "541333******0011", "expiry": "2812", "pan": sealed}
        assert device.charged(entry_mode="manual", card=card)["gateway"]["network"] == "mastercard"
        assert device.charge(entry_mode="swipe", card=card).error == RULE
        assert device.charge(entry_mode="manual").error == RULE
        for digits in (b"5413", b"54133300890200ab", b"5" * 20):
            card["pan"] = envelope.seal(device.keys["tdk"], digits, device.bench.random)
            assert device.charge(entry_mode="manual", card=card).error == BAD_REQUEST

    def test_a_card_that_the_reader_encrypted(self, device: Device) -> None:
        encrypted = {"scheme": "dukpt-aes", "ksn": "00" * 12, "data": "11" * 32}
        card = {"masked_pan": "476173******0119", "encrypted_card": encrypted}
        assert device.charged(card=card)["gateway"]["network"] == "visa"
        card["encrypted_card"] = {**encrypted, "scheme": "rot13"}
        assert device.charge(card=card).error == BAD_REQUEST

    def test_card_data_under_another_key(self, device: Device) -> None:
        sealed = envelope.seal(device.keys["msk"], TRACK2, device.bench.random, kcv="000000")
        card = {"masked_pan": "476173******0119", "track2": sealed}
        reply = device.charge(card=card)
        assert (reply.error, reply.message) == (BAD_REQUEST, "The envelope does not open.")

    def test_an_envelope_under_another_key(self, bench: Bench, device: Device) -> None:
        other = bench.device()
        body = other.seal(other.order())
        reply = device.post("/pos/charge", body)
        assert (reply.error, reply.message) == (BAD_REQUEST, "The envelope does not open.")


@pytest.mark.parametrize(
    ("digits", "name"),
    [
        ("4761739001010119", "visa"),
        ("5413330089020011", "mastercard"),
        ("2223000048400011", "mastercard"),
        ("374245001751006", "amex"),
        ("6011000990139424", "discover"),
        ("3528000000000007", "jcb"),
        ("6200000000000005", "unionpay"),
        ("6759649826438453", "maestro"),
        ("1234", "unknown"),
        ("******0119", "unknown"),
    ],
)
def test_networks(digits: str, name: str) -> None:
    assert network(digits) == name
