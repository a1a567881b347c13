"""What may go wrong, as data: the words, the matching, and what each does to a call."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import sim.faults
from sim.faults import PLACE, FaultError, Faults, Rule, Seen, kind, parse, parse_document
from sim.faults.wire import CallRule
from sim.host.wire import ConnectionCut
from sim.seed import seeded
from terminal.crypto.kcv import aes_kcv
from terminal.errors import EnvelopeError
from tests.sim.host.support import Bench, Device, Reply


def rules(*documents: dict[str, Any]) -> bytes:
    return json.dumps({"rules": documents}).encode()


class TestWords:
    @pytest.mark.parametrize(
        "rule",
        [
            {"do": "explode"},
            {"do": "Delay", "seconds": 1},
            {"match": {}},
            {"do": "delay"},
            {"do": "delay", "seconds": -1},
            {"do": "delay", "seconds": "1"},
            {"do": "delay", "second": 1, "seconds": 1},
            {"do": "status", "status": 200},
            {"do": "status", "status": 503, "retry-after": 1},
            {"do": "cut", "match": {"calls": "charge"}},
            {"do": "cut", "match": {"call": "chargé"}},
            {"do": "cut", "match": {"call": "config", "amount": 1}},
            {"do": "cut", "match": {"nth": 0}},
            {"do": "cut", "match": {"probability": 1.5}},
            {"do": "cut", "match": None},
        ],
    )
    def test_an_unknown_one_is_refused(self, rule: dict[str, Any]) -> None:
        with pytest.raises(FaultError, match=r"^faults: "):
            parse(rules({"do": "cut"}, rule))

    @pytest.mark.parametrize(
        ("rule", "told"),
        [
            ({"do": "drop_anser"}, "rules[0].do: 'drop_anser' is unknown (one of cached_5xx, clock, "),
            ({"do": "cut", "match": {"nht": 1}}, "rules[0].match: 'nht' is unknown (one of nth, times, "),
            ({"do": "cut", "secs": 1}, "rules[0]: 'secs' is unknown (one of do, match)"),
            ({"do": "drop_answer", "how": "cutt"}, "rules[0].how: 'cutt' is unknown (one of cut, silence)"),
            (
                {"do": "cut", "match": {"call": "chrage"}},
                "rules[0].match.call: 'chrage' is no call (one of charge, ",
            ),
        ],
    )
    def test_a_typo_is_named_with_the_words_that_there_are(self, rule: dict[str, Any], told: str) -> None:
        with pytest.raises(FaultError, match=re.escape(f"faults: {told}")):
            parse(rules(rule))
        with pytest.raises(FaultError, match=r"disk\[0\].match.op: 'comit' is unknown \(one of .*commit"):
            parse_document('[[disk]]\ndo = "full"\nmatch = {op = "comit"}\n', toml=True)

    @pytest.mark.parametrize(
        "document", [b"", b"[]", b"{}", b'{"rules": 1}', b'{"rule": []}', b"\xff", b"rules = ["]
    )
    @pytest.mark.parametrize("toml", [False, True])
    def test_a_document_that_is_none(self, document: bytes, toml: bool) -> None:
        with pytest.raises(FaultError):
            parse(document, toml=toml)

    def test_the_same_in_toml(self) -> None:
        in_toml = (
            '[[rules]]\ndo = "status"\nstatus = 503\nmatch = {call = "charge", nth = 2}\n[[rules]]\ndo = "cut"\n'
        )
        in_json = rules({"do": "status", "status": 503, "match": {"call": "charge", "nth": 2}}, {"do": "cut"})
        assert parse(in_toml, toml=True) == parse(in_json)

    def test_every_word_is_in_the_description(self) -> None:
        words = {
            str(shape.__struct_config__.tag) for group in Rule.__subclasses__() for shape in group.__subclasses__()
        }
        assert len(words) == 37
        assert all(f"``{word}``" in (sim.faults.__doc__ or "") for word in words)

    def test_every_kind_for_calls_has_its_place(self) -> None:
        assert {str(shape.__struct_config__.tag) for shape in CallRule.__subclasses__()} == PLACE.keys()


class TestMatching:
    def fired(self, faults: Faults, times: int, **call: Any) -> list[bool]:
        return [self.choose(faults, **call) is not None for _ in range(times)]

    def choose(
        self, faults: Faults, call: str = "charge", device_id: str = "POS-1", amount: int | None = None
    ) -> Any:
        return faults.choose(call, lambda: device_id, lambda: Seen(amount))

    def test_first_match_wins(self) -> None:
        faults = Faults(seeded(7), parse(rules({"do": "cut", "match": {"call": "charge"}}, {"do": "drop_answer"})))
        assert kind(self.choose(faults)) == "cut"
        assert kind(self.choose(faults, call="refund")) == "drop_answer"
        assert faults.public()["fired"] == [1, 1]
        assert faults.by_kind == {"cut": 1, "drop_answer": 1}

    def test_all_that_is_given_must_hold(self) -> None:
        match = {"call": "charge", "device_id": "POS-1", "amount": 4242}
        faults = Faults(seeded(7), parse(rules({"do": "cut", "match": match})))
        assert self.choose(faults, amount=4242)
        assert not self.choose(faults, amount=4241)
        assert not self.choose(faults, amount=None)
        assert not self.choose(faults, device_id="POS-2", amount=4242)
        assert not self.choose(faults, call="refund", amount=4242)

    def test_the_nth_and_the_first_few(self) -> None:
        faults = Faults(seeded(7), parse(rules({"do": "cut", "match": {"nth": 3}})))
        assert self.fired(faults, 5) == [False, False, True, False, False]
        faults.replace(parse(rules({"do": "cut", "match": {"times": 2}})))
        assert self.fired(faults, 4) == [True, True, False, False]

    def test_a_probability_from_the_seed(self) -> None:
        document = rules({"do": "cut", "match": {"probability": 0.25}})
        one, two = Faults(seeded(7), parse(document)), Faults(seeded(7), parse(document))
        fired = self.fired(one, 1000)
        assert fired == self.fired(two, 1000)
        assert 180 < sum(fired) < 320
        for probability, expected in [(0.0, 0), (1.0, 50)]:
            faults = Faults(seeded(7), parse(rules({"do": "cut", "match": {"probability": probability}})))
            assert sum(self.fired(faults, 50)) == expected


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def device(bench: Bench) -> Device:
    return bench.device()


def cut(bench: Bench, device: Device, key: str, body: bytes) -> Reply:
    """A call whose connection is cut: what had arrived by then."""
    with pytest.raises(ConnectionCut):
        device.post("/pos/charge", body, key)
    return bench.last


class TestEffects:
    def test_delay(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "delay", "seconds": 12.5})
        before = bench.clock.moment
        assert device.charge().status == 200
        assert (bench.clock.moment - before).total_seconds() == 12.5

    @pytest.mark.parametrize(("acted", "charges"), [(False, 0), (True, 1)])
    def test_a_status(self, bench: Bench, device: Device, acted: bool, charges: int) -> None:
        bench.faults({"do": "status", "status": 503, "acted": acted})
        assert device.charge().error == (503, "5000")
        assert len(bench.charges()) == charges

    def test_too_many_with_retry_after(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "status", "status": 429, "retry_after": 7, "match": {"times": 1}})
        reply = device.charge()
        assert reply.error == (429, "4290")
        assert reply.headers["retry-after"] == "7"
        assert device.charge().status == 200

    def test_a_code_and_a_message_of_its_own(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "status", "status": 418, "code": "T", "message": "teapot"})
        reply = device.charge()
        assert (reply.error, reply.message) == ((418, "T"), "teapot")

    @pytest.mark.parametrize(("acted", "charges"), [(False, 0), (True, 1)])
    def test_html(self, bench: Bench, device: Device, acted: bool, charges: int) -> None:
        bench.faults({"do": "html", "status": 502, "acted": acted})
        reply = device.charge()
        assert (reply.status, reply.headers["content-type"]) == (502, "text/html; charset=utf-8")
        assert reply.body.startswith(b"<!DOCTYPE html>")
        assert len(bench.charges()) == charges

    def test_the_request_lost(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "drop_request", "match": {"call": "charge"}})
        assert cut(bench, device, "key-1", device.seal(device.order())).status == 0
        assert bench.charges() == []

    def test_the_answer_lost(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "drop_answer", "match": {"call": "charge", "nth": 1}})
        body = device.seal(device.order())
        assert cut(bench, device, "key-1", body).status == 0
        (charge,) = bench.charges()
        assert device.open(device.post("/pos/charge", body, "key-1"))["id"] == charge["id"]
        assert len(bench.charges()) == 1

    def test_half_an_answer(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "cut", "match": {"amount": 1250}})
        reply = cut(bench, device, "key-1", device.seal(device.order()))
        assert reply.status == 200
        assert len(reply.body) == int(reply.headers["content-length"]) // 2
        assert len(bench.charges()) == 1

    def test_one_byte(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "corrupt", "at": 0, "match": {"call": "heartbeat"}}, {"do": "corrupt"})
        beat = device.seal({"uptime_sec": 1, "pending": 0, "version": "1"})
        assert device.post("/pos/heartbeat", beat).body[0] != ord("{")
        body = device.seal(device.order())
        wrong = device.post("/pos/charge", body, "key-1").body
        bench.ask("DELETE", "/sim/faults")
        right = device.post("/pos/charge", body, "key-1").body
        assert len(wrong) == len(right)

    def test_a_wrong_kcv(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "wrong_kcv"})
        answer = device.charge().json
        kcv = aes_kcv(device.keys["msk"])
        assert answer["key_kcv"] != kcv
        assert answer["key_kcv"][1:] == kcv[1:]
        keys = bench.ask("POST", "/pos/keys", device.attestation()).json["keys"]
        assert all(len(entry["kcv"]) == 6 for entry in keys.values())

    def test_another_key(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "wrong_key"})
        reply = device.charge()
        assert reply.json["key_kcv"] == aes_kcv(device.keys["msk"])
        with pytest.raises((EnvelopeError, ValueError)):
            device.open(reply)
        parameters = bench.ask("POST", "/pos/terminal-parameters", device.attestation())
        with pytest.raises(EnvelopeError):
            device.open(parameters)
        assert len(bench.charges()) == 1

    def test_another_amount(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "other_amount", "match": {"nth": 1}})
        body = device.seal(device.order(1250))
        assert device.open(device.post("/pos/charge", body, "k"))["amount"]["value"] == "1251"
        assert device.open(device.post("/pos/charge", body, "k"))["amount"]["value"] == "1250"
        assert bench.charges()[0]["amount"]["value"] == "1250"

    def test_a_clock_that_is_off(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "clock", "seconds": 3600})
        started = bench.ask("POST", "/pos/bootstrap", device.activation()).json
        assert started["server_time"] == "2025-12-13T15:25:30Z"
        assert device.charge().error == (401, "4010")
        bench.ask("DELETE", "/sim/faults")
        assert device.charge().status == 200

    def test_of_one_device_only(self, bench: Bench, device: Device) -> None:
        other = bench.device()
        bench.faults({"do": "status", "status": 500, "match": {"device_id": device.id}})
        assert device.charge().status == 500
        assert bench.ask("POST", "/pos/bootstrap", device.activation()).status == 500
        assert other.charge().status == 200

    def test_of_one_amount_only(self, bench: Bench, device: Device) -> None:
        bench.faults({"do": "status", "status": 500, "match": {"amount": 4242}})
        assert device.charge(4241).status == 200
        assert device.charge(4242).status == 500
        assert device.post("/pos/charge", b"not an envelope").status == 400
        assert bench.ask("POST", "/pos/charge", {"X-Terminal-Id": "TID-1"}).status == 400
        assert bench.ask("POST", "/pos/charge", {**device.signed(), "X-Key-Id": "mac_x"}).status == 401
        assert bench.ask("POST", "/pos/bootstrap", device.activation()).status == 200


class TestOverTheWire:
    def test_set_shown_and_cleared(self, bench: Bench, device: Device) -> None:
        rule = {"do": "status", "status": 503, "match": {"call": "charge", "nth": 2}}
        assert bench.faults(rule).json == {"rules": [rule], "seen": [0], "fired": [0], "by_kind": {}}
        assert [device.charge().status for _ in range(3)] == [200, 503, 200]
        assert bench.ask("GET", "/sim/faults").json == {
            "rules": [rule],
            "seen": [3],
            "fired": [1],
            "by_kind": {"status": 1},
        }
        assert bench.ask("DELETE", "/sim/faults").json == {
            "rules": [],
            "seen": [],
            "fired": [],
            "by_kind": {"status": 1},
        }

    def test_in_toml(self, bench: Bench) -> None:
        body = b'[[rules]]\ndo = "cut"\n'
        assert bench.ask("POST", "/sim/faults", {"Content-Type": "application/toml"}, body).status == 200
        assert bench.ask("POST", "/sim/faults", None, body).error == (400, "4000")

    def test_an_unknown_word_changes_nothing(self, bench: Bench) -> None:
        bench.faults({"do": "cut"})
        reply = bench.faults({"do": "explode"})
        assert reply.error == (400, "4000")
        assert "explode" in reply.message
        assert bench.ask("GET", "/sim/faults").json["rules"] == [{"do": "cut"}]

    def test_the_record_says_what_was_lost(self, bench: Bench, device: Device) -> None:
        bench.faults(
            {"do": "drop_request", "match": {"call": "charge", "nth": 1}},
            {"do": "drop_answer", "match": {"call": "charge"}},
        )
        cut(bench, device, "key-1", device.seal(device.order()))
        cut(bench, device, "key-2", device.seal(device.order()))
        lost, silent = bench.ask("GET", f"/sim/exchanges?device_id={device.id}").json["exchanges"][-2:]
        assert (lost["status"], lost["response"]) == (None, {"fault": "drop_request", "answer": None})
        assert silent["status"] == 200
        assert silent["response"]["fault"] == "drop_answer"
        assert silent["response"]["answer"]["status"] == "approved"
