"""From bootstrap to activate, and every refusal on the way."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sim.host.config import HostConfig
from sim.host.viopay_activation import PAIRING_ALPHABET
from terminal.clock import rfc3339
from terminal.crypto import envelope, keyblock_header
from terminal.crypto.kcv import aes_kcv, hmac_kcv
from tests.sim.host.support import Bench, Device

BAD_REQUEST, CREDENTIALS, SUPERSEDED = (400, "4000"), (401, "4010"), (401, "4011")
NOT_YOURS, BLOCKED, UNKNOWN, CONFLICT = (403, "4030"), (403, "4031"), (404, "4040"), (409, "4090")
RULE, TOO_OLD, TOO_MANY = (422, "4220"), (426, "4260"), (429, "4290")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def change(bench: Bench, device: Device, **what: Any) -> None:
    assert bench.ask("POST", f"/sim/devices/{device.id}", None, what).status == 200


def test_the_way_up(bench: Bench) -> None:
    device = bench.device(activated=False)
    started = bench.ask("POST", "/pos/bootstrap", device.activation())
    assert started.json == {
        "status": "ok",
        "server_time": rfc3339(bench.clock()),
        "min_supported_version": "0.1.0",
    }

    def status() -> Any:
        return bench.ask("GET", "/pos/status", device.activation()).json

    assert status() == {"device_status": "inactive", "is_claimed": False, "pairing_code_status": "none"}
    code = bench.ask("POST", "/pos/pairing-code", device.activation()).json
    assert code == {"pairing_code": code["pairing_code"], "expires_in_sec": 300}
    assert re.fullmatch(f"[{PAIRING_ALPHABET}]{{6}}", code["pairing_code"])
    assert status() == {"device_status": "inactive", "is_claimed": False, "pairing_code_status": "pending"}
    claimed = bench.ask("POST", "/pos/claim", device.merchant(), {"pairing_code": code["pairing_code"]})
    assert claimed.json == {"status": "claimed", "device_id": device.id}
    assert status() == {"device_status": "claimed", "is_claimed": True, "pairing_code_status": "used"}
    attested = device.attest().json
    assert attested == {
        "status": "attested",
        "attestation_token": attested["attestation_token"],
        "expires_in_sec": 300,
    }
    assert attested["attestation_token"].startswith("att_")
    device.take_keys()
    config = device.open(bench.ask("POST", "/pos/config", device.attestation()))
    assert config["terminal"] == {"terminal_id": device.terminal_id, "device_id": device.id}
    assert list(config) == ["terminal", "merchant", "location", "emv", "security", "branding", "intervals"]
    parameters = bench.ask("POST", "/pos/terminal-parameters", device.attestation())
    assert parameters.json["format"] == "TR31-DATA-CHUNKED"
    assert {"version", "acquirers", "aids", "capks", "contact", "contactless"} <= set(device.open(parameters))
    assert device.open(device.ready()) == {"status": "activated", "activated_at": rfc3339(bench.clock())}
    assert status() == {"device_status": "activated", "is_claimed": True, "pairing_code_status": "used"}


def test_the_key_set_and_its_headers(bench: Bench) -> None:
    device = bench.device(activated=False)
    device.claim()
    device.attest()
    answer = device.take_keys().json
    assert set(answer) == {"key_set", "transport", "keys"}
    assert set(answer["key_set"]) == {"key_set_id", "issued_at", "expires_at"}
    assert answer["transport"] == {"format": "TR31", "encryption": "AES-256", "wrapped_under": "kek"}
    import base64

    wanted = {"tmk": "K1AD", "kek": "K1AD", "msk": "D0AB", "tpk": "P0AE", "tdk": "D0AE", "mac": "M7HG"}
    assert list(answer["keys"]) == list(wanted)
    for role, header in wanted.items():
        entry = answer["keys"][role]
        assert set(entry) == {"key_id", "key_block", "usage", "kcv"}
        block = base64.b64decode(entry["key_block"]).decode("ascii")
        parsed = keyblock_header.parse_header(block)
        assert parsed.version + parsed.usage + parsed.algorithm + parsed.mode == f"D{header}"
        assert parsed.blocks == ((keyblock_header.OptionalBlock("HM", "21"),) if role == "mac" else ())
        kcv = hmac_kcv if role == "mac" else aes_kcv
        assert entry["kcv"] == kcv(device.keys[role])
    assert len({device.keys[role] for role in wanted}) == len(wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Device-Id", None),
        ("X-Device-Id", ""),
        ("X-Device-Id", "POS-12345"),
        ("X-Device-Id", "TID-12345678"),
        ("User-Agent", None),
        ("User-Agent", "curl/8.0"),
        ("User-Agent", "Viopay-POS/x (Linux; Tillwright)"),
        ("X-Client-Type", None),
        ("X-Client-Type", "web"),
    ],
)
@pytest.mark.parametrize("path", ["/pos/bootstrap", "/pos/pairing-code", "/pos/status", "/pos/attest"])
def test_a_header_that_is_missing_or_malformed(bench: Bench, path: str, name: str, value: str | None) -> None:
    device = bench.device(activated=False)
    headers = {k: v for k, v in device.identity().items() if k != name}
    if value is not None:
        headers[name] = value
    assert bench.ask("GET" if path.endswith("status") else "POST", path, headers).error == BAD_REQUEST


def test_a_header_that_comes_twice(bench: Bench) -> None:
    device = bench.device(activated=False)
    headers = [*device.activation().items(), ("X-Device-Id", device.id)]
    assert bench.ask("POST", "/pos/bootstrap", headers).error == BAD_REQUEST


@pytest.mark.parametrize(
    ("version", "expected"), [("0.0.9", TOO_OLD), ("0", TOO_OLD), ("0.1", None), ("0.1.0", None), ("0.10.0", None)]
)
def test_a_version_that_is_too_old(bench: Bench, version: str, expected: tuple[int, str] | None) -> None:
    device = bench.device(activated=False)
    headers = {**device.activation(), "User-Agent": f"Viopay-POS/{version} (Linux; Tillwright)"}
    reply = bench.ask("POST", "/pos/bootstrap", headers)
    assert (reply.error if expected else reply.status) == (expected or 200)


def test_an_unknown_device(bench: Bench) -> None:
    device = bench.device(activated=False)
    for method, path in [("POST", "/pos/bootstrap"), ("POST", "/pos/pairing-code"), ("GET", "/pos/status")]:
        headers = {**device.activation(), "X-Device-Id": "POS-00000000"}
        assert bench.ask(method, path, headers).error == UNKNOWN
    assert bench.ask("POST", "/pos/attest", device.identity(device_id="POS-00000000")).error == UNKNOWN


class TestPairing:
    def test_a_code_is_used_once(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        code = device.pairing_code()
        bearer = device.merchant()
        assert bench.ask("POST", "/pos/claim", bearer, {"pairing_code": code}).status == 200
        assert bench.ask("POST", "/pos/claim", bearer, {"pairing_code": code}).error == UNKNOWN

    def test_a_code_expires(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        code = device.pairing_code()
        bench.clock.advance(300)
        status = bench.ask("GET", "/pos/status", device.activation()).json
        assert status["pairing_code_status"] == "expired"
        assert bench.ask("POST", "/pos/claim", device.merchant(), {"pairing_code": code}).error == UNKNOWN
        assert device.claim().status == 200

    def test_one_active_code_a_device(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        first, second = device.pairing_code(), device.pairing_code()
        assert first != second
        bearer = device.merchant()
        assert bench.ask("POST", "/pos/claim", bearer, {"pairing_code": first}).error == UNKNOWN
        assert bench.ask("POST", "/pos/claim", bearer, {"pairing_code": second}).status == 200

    def test_another_merchants_device(self, bench: Bench) -> None:
        device, other = bench.device(activated=False), bench.device(activated=False)
        code = device.pairing_code()
        assert bench.ask("POST", "/pos/claim", other.merchant(), {"pairing_code": code}).error == NOT_YOURS
        assert bench.ask("POST", "/pos/claim", device.merchant(), {"pairing_code": code}).status == 200

    def test_a_merchant_with_two_devices(self, bench: Bench) -> None:
        one = bench.device(activated=False)
        two = bench.device(activated=False, client_id=one.document["merchant"]["client_id"])
        assert two.document["merchant"] == one.document["merchant"]
        reply = bench.ask("POST", "/pos/claim", one.merchant(), {"pairing_code": two.pairing_code()})
        assert reply.json["device_id"] == two.id

    def test_out_of_order(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        assert bench.ask("POST", "/pos/pairing-code", device.activation()).error == CONFLICT
        device.claim()
        assert bench.ask("POST", "/pos/pairing-code", device.activation()).error == CONFLICT

    def test_a_claim_before_the_session_is_initiated(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        body = {"pairing_code": device.pairing_code()}
        assert bench.ask("POST", "/pos/claim", device.session(), body).error == CONFLICT

    @pytest.mark.parametrize("body", [{}, {"pairing_code": 7}, {"pairing_code": "K7M3"}, [], "x"])
    def test_a_malformed_claim(self, bench: Bench, body: Any) -> None:
        device = bench.device(activated=False)
        assert bench.ask("POST", "/pos/claim", device.merchant(), body).error == BAD_REQUEST


class TestSession:
    def test_the_answer(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        for path in ("/client/session", "/auth/token"):
            body = {**device.document["merchant"], "grant_type": "client_credentials"}
            reply = bench.ask("POST", path, None, body).json
            assert reply == {"access_token": reply["access_token"], "token_type": "Bearer", "expires_in": 300}
        bearer = device.session()
        context = bench.ask("POST", "/session/initiate", bearer, {"host": "merchant.viopay.io"}).json
        assert context == {"status": "ok", "merchant": context["merchant"], "channel": "pos"}

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"client_secret": "wrong"}, CREDENTIALS),
            ({"client_id": "mrc_nobody"}, CREDENTIALS),
            ({"grant_type": "password"}, BAD_REQUEST),
            ({"client_secret": None}, BAD_REQUEST),
            ({"client_id": ""}, BAD_REQUEST),
        ],
    )
    def test_a_wrong_login(self, bench: Bench, change: Any, expected: tuple[int, str]) -> None:
        device = bench.device(activated=False)
        body = {**device.document["merchant"], "grant_type": "client_credentials", **change}
        assert bench.ask("POST", "/client/session", None, body).error == expected

    def test_a_token_that_is_missing_wrong_or_expired(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        bearer = device.merchant()
        token = bearer["Authorization"].removeprefix("Bearer ")
        for path, body in [("/session/initiate", {"host": "h"}), ("/pos/claim", {"pairing_code": "K7M3NP"})]:
            assert bench.ask("POST", path, None, body).error == BAD_REQUEST
            assert bench.ask("POST", path, {"Authorization": "Bearer"}, body).error == BAD_REQUEST
            assert bench.ask("POST", path, {"Authorization": "Bearer nonsense"}, body).error == CREDENTIALS
            assert bench.ask("POST", path, {"Authorization": f"Attestation {token}"}, body).error == CREDENTIALS
        assert bench.ask("POST", "/session/initiate", bearer, {}).error == BAD_REQUEST
        bench.clock.advance(300)
        assert bench.ask("POST", "/session/initiate", bearer, {"host": "h"}).error == CREDENTIALS

    def test_too_many_tokens(self) -> None:
        bench = Bench(config=HostConfig(max_live_tokens=2))
        device = bench.device(activated=False)
        body = {**device.document["merchant"], "grant_type": "client_credentials"}
        assert [bench.ask("POST", "/client/session", None, body).status for _ in range(2)] == [200, 200]
        reply = bench.ask("POST", "/client/session", None, body)
        assert reply.error == TOO_MANY
        assert int(reply.headers["retry-after"]) > 0
        bench.clock.advance(301)
        assert bench.ask("POST", "/client/session", None, body).status == 200


class TestAttest:
    def test_before_claim(self, bench: Bench) -> None:
        assert bench.device(activated=False).attest().error == CONFLICT

    @pytest.mark.parametrize(
        ("seconds", "status"), [(-300, 200), (-301, 401), (60, 200), (61, 401), (-3600, 401), (3600, 401)]
    )
    def test_the_time_window(self, bench: Bench, seconds: int, status: int) -> None:
        device = bench.device(activated=False)
        device.claim()
        now = bench.clock.moment
        bench.clock.advance(seconds)
        headers = device.identity()
        bench.clock.moment = now
        reply = bench.ask("POST", "/pos/attest", headers)
        assert reply.status == status
        if status == 401:
            assert reply.error == CREDENTIALS

    def test_a_replay(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        device.claim()
        headers = device.identity()
        assert bench.ask("POST", "/pos/attest", headers).status == 200
        assert bench.ask("POST", "/pos/attest", headers).error == CREDENTIALS
        other = bench.device(activated=False)
        other.claim()
        nonce = headers["X-Nonce"]
        assert bench.ask("POST", "/pos/attest", other.identity(nonce=nonce)).status == 200

    def test_a_nonce_may_come_again_once_its_window_has_gone(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        device.claim()
        headers = device.identity()
        assert bench.ask("POST", "/pos/attest", headers).status == 200
        bench.clock.advance(302)
        assert bench.ask("POST", "/pos/attest", device.identity(nonce=headers["X-Nonce"])).status == 200

    def test_a_forged_request_uses_no_nonce_up(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        device.claim()
        headers = device.identity()
        forged = {**headers, "X-Signature": "v1=" + "A" * 43 + "="}
        assert bench.ask("POST", "/pos/attest", forged).error == CREDENTIALS
        assert bench.ask("POST", "/pos/attest", headers).status == 200

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("X-Key-Id", None, BAD_REQUEST),
            ("X-Key-Id", "idk_unknown", CREDENTIALS),
            ("X-Timestamp", None, BAD_REQUEST),
            ("X-Timestamp", "yesterday", BAD_REQUEST),
            ("X-Timestamp", "2025-12-13T14:25:30", BAD_REQUEST),
            ("X-Timestamp", "2025-12-13T14:25:30+02:00", BAD_REQUEST),
            ("X-Timestamp", "2025-13-13T14:25:30Z", BAD_REQUEST),
            ("X-Timestamp", "20251213T142530Z", BAD_REQUEST),
            ("X-Nonce", None, BAD_REQUEST),
            ("X-Nonce", "A" * 11, BAD_REQUEST),
            ("X-Nonce", "A" * 129, BAD_REQUEST),
            ("X-Nonce", "abc-def-ghi-jkl", BAD_REQUEST),
            ("X-Nonce", "abcdefghijk\xe9", BAD_REQUEST),
            ("X-Signature", None, BAD_REQUEST),
            ("X-Signature", "deadbeef", BAD_REQUEST),
            ("X-Signature", "v1=short", BAD_REQUEST),
            ("X-Signature", "v2=" + "A" * 43 + "=", CREDENTIALS),
            ("X-Signature", "v1=" + "A" * 43 + "=", CREDENTIALS),
        ],
    )
    def test_a_header_that_is_wrong(
        self, bench: Bench, name: str, value: str | None, expected: tuple[int, str]
    ) -> None:
        device = bench.device(activated=False)
        device.claim()
        headers = {k: v for k, v in device.identity().items() if k != name}
        if value is not None:
            headers[name] = value
        assert bench.ask("POST", "/pos/attest", headers).error == expected

    def test_a_signature_of_another_device(self, bench: Bench) -> None:
        device, other = bench.device(activated=False), bench.device(activated=False)
        device.claim()
        headers = other.identity(device_id=device.id, key_id=device.document["identity"]["key_id"])
        assert bench.ask("POST", "/pos/attest", headers).error == CREDENTIALS

    def test_a_revoked_key_or_device(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        device.claim()
        change(bench, device, identity_revoked=True)
        assert device.attest().error == CREDENTIALS
        change(bench, device, identity_revoked=False, revoked=True)
        assert device.attest().error == BLOCKED
        assert bench.ask("POST", "/pos/bootstrap", device.activation()).error == BLOCKED
        change(bench, device, revoked=False)
        assert device.attest().status == 200


ATTESTED = ["/pos/keys", "/pos/config", "/pos/terminal-parameters", "/pos/activate"]


@pytest.mark.parametrize("path", ATTESTED)
class TestToken:
    def test_missing_wrong_or_of_another_device(self, bench: Bench, path: str) -> None:
        device, other = bench.device(), bench.device()
        good = device.attestation()
        no_device = {"Authorization": good["Authorization"]}
        no_token = {"X-Device-Id": device.id}
        bearer = {**good, "Authorization": f"Bearer {device.token}"}
        unknown = {**good, "Authorization": "Attestation att_unknown"}
        swapped = {**good, "X-Device-Id": other.id}
        assert bench.ask("POST", path, no_device).error == BAD_REQUEST
        assert bench.ask("POST", path, no_token).error == BAD_REQUEST
        assert bench.ask("POST", path, bearer).error == CREDENTIALS
        assert bench.ask("POST", path, unknown).error == CREDENTIALS
        assert bench.ask("POST", path, swapped).error == CREDENTIALS

    def test_expired(self, bench: Bench, path: str) -> None:
        device = bench.device()
        body = device.seal({"emv_ready": True, "keys_installed": True, "network_ok": True})
        assert bench.ask("POST", path, device.attestation(), body).status == 200
        bench.clock.advance(299.5)
        assert bench.ask("POST", path, device.attestation(), body).status in (200, 400)
        bench.clock.advance(0.5)
        assert bench.ask("POST", path, device.attestation(), body).error == CREDENTIALS

    def test_a_revoked_or_unclaimed_device(self, bench: Bench, path: str) -> None:
        device = bench.device()
        change(bench, device, revoked=True)
        assert bench.ask("POST", path, device.attestation()).error == BLOCKED
        change(bench, device, revoked=False, unclaimed=True)
        assert bench.ask("POST", path, device.attestation()).error == BLOCKED
        assert device.attest().error == BLOCKED


class TestOrder:
    def test_before_keys(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        device.claim()
        device.attest()
        for path in ATTESTED[1:]:
            assert bench.ask("POST", path, device.attestation()).error == CONFLICT

    def test_activate_before_parameters_or_config(self, bench: Bench) -> None:
        device = bench.device(activated=False)
        device.claim()
        device.attest()
        device.take_keys()
        assert device.ready().error == CONFLICT
        bench.ask("POST", "/pos/config", device.attestation())
        assert device.ready().error == CONFLICT
        bench.ask("POST", "/pos/terminal-parameters", device.attestation())
        assert device.ready().status == 200

    @pytest.mark.parametrize("flag", ["emv_ready", "keys_installed", "network_ok"])
    def test_activate_with_a_flag_that_is_false_or_none(self, bench: Bench, flag: str) -> None:
        device = bench.device()
        assert device.ready(**{flag: False}).error == CONFLICT
        assert device.ready(**{flag: 1}).error == BAD_REQUEST
        body = {"emv_ready": True, "keys_installed": True, "network_ok": True}
        body.pop(flag)
        sealed = device.seal(body)
        assert bench.ask("POST", "/pos/activate", device.attestation(), sealed).error == BAD_REQUEST

    def test_activate_with_a_body_that_is_no_envelope(self, bench: Bench) -> None:
        device = bench.device()
        for body in (b"", b"{}", b"\xff", json.dumps({"emv_ready": True}).encode()):
            reply = bench.ask("POST", "/pos/activate", device.attestation(), body)
            assert reply.error == BAD_REQUEST
            assert reply.message == "The envelope does not open."

    def test_activating_again_gives_the_first_moment(self, bench: Bench) -> None:
        device = bench.device()
        first = device.open(device.ready())
        bench.clock.advance(10)
        assert device.open(device.ready()) == first


class TestRotation:
    def test_the_old_set_goes_on(self, bench: Bench) -> None:
        device = bench.device()
        old = (dict(device.keys), dict(device.key_ids))
        device.take_keys()
        assert device.keys["msk"] != old[0]["msk"]
        new = (device.keys, device.key_ids)
        for keys in (old, new):
            device.keys, device.key_ids = keys
            assert device.charged()["status"] == "approved"
        device.keys, device.key_ids = old
        assert device.open(device.ready())["status"] == "activated"

    def test_until_it_expires(self, bench: Bench) -> None:
        device = bench.device()
        bench.clock.advance(24 * 3600 - 1)
        assert device.charge().status == 200
        bench.clock.advance(1)
        assert device.charge().error == SUPERSEDED
        device.attest()
        assert bench.ask("POST", "/pos/config", device.attestation()).error == SUPERSEDED
        device.take_keys()
        assert device.charge().status == 200

    def test_until_the_host_supersedes_it(self, bench: Bench) -> None:
        device = bench.device()
        change(bench, device, superseded=True)
        assert device.charge().error == SUPERSEDED
        assert bench.ask("POST", "/pos/config", device.attestation()).error == SUPERSEDED
        forged = device.signed()
        forged["X-Signature"] = "v1=" + "A" * 43 + "="
        assert bench.ask("POST", "/pos/charge", forged).error == CREDENTIALS
        device.take_keys()
        assert device.charge().status == 200

    def test_a_revoked_set_is_unknown(self, bench: Bench) -> None:
        device = bench.device()
        change(bench, device, keys_revoked=True)
        assert device.charge().error == CREDENTIALS

    def test_the_oldest_goes_when_there_are_too_many(self) -> None:
        bench = Bench(config=HostConfig(max_live_key_sets=2))
        device = bench.device()
        first = (dict(device.keys), dict(device.key_ids))
        device.take_keys()
        second = (dict(device.keys), dict(device.key_ids))
        device.take_keys()
        device.keys, device.key_ids = second
        assert device.charge().status == 200
        device.keys, device.key_ids = first
        assert device.charge().error == SUPERSEDED


def test_an_unclaimed_device_pairs_again_and_its_old_keys_are_gone(bench: Bench) -> None:
    device = bench.device()
    change(bench, device, unclaimed=True)
    assert device.charge().error == BLOCKED
    status = bench.ask("GET", "/pos/status", device.activation()).json
    assert status == {"device_status": "inactive", "is_claimed": False, "pairing_code_status": "none"}
    assert device.claim().status == 200
    assert device.charge().error == CREDENTIALS
    device.attest()
    device.take_keys()
    assert device.charge().error == CONFLICT  # not activated again yet
    assert device.ready().error == CONFLICT
    for path in ("/pos/config", "/pos/terminal-parameters"):
        assert bench.ask("POST", path, device.attestation()).status == 200
    assert device.ready().status == 200
    assert device.charge().status == 200


def test_the_parameters_are_the_same_for_all_and_after_a_restart(bench: Bench) -> None:
    one, two = bench.device(), bench.device()

    def parameters(device: Device) -> bytes:
        reply = bench.ask("POST", "/pos/terminal-parameters", device.attestation())
        assert all(len(chunk["ciphertext"]) <= 2 * 2048 for chunk in reply.json["chunks"])
        return envelope.open_envelope(device.keys["msk"], reply.body, limit=2**20)

    assert parameters(one) == parameters(two)


def test_health_and_what_is_not_there(bench: Bench) -> None:
    assert bench.ask("GET", "/health/live").json["service"] == "vi-backoffice-api"
    assert bench.ask("GET", "/nothing").error == UNKNOWN
    assert bench.ask("POST", "/pos/bootstrap/").error == UNKNOWN
    assert bench.ask("DELETE", "/pos/bootstrap").error == (405, "4050")
