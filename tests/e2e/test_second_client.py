"""The second client walks the whole of the VioPay POS API against the host simulator, as a stranger would.

What the reference says is insisted upon; where it is silent, so are these tests: where it leaves open which of two
refusals comes, both are taken. The host is a process of its own, started from the command line, known only by the
line that it prints.

What the reference gives no way to reach is not tested: 429, a revoked key or device (401, 403 "4031"), a settled
charge, and the rules of `/sim/faults`, whose shape it leaves open. What takes minutes or days by the clock (expiry
of tokens, sessions, codes, key sets and idempotency keys, the late failure of a refund of an amount ending in 45)
is tested on a second host, whose clock can be moved.
"""

from __future__ import annotations

import gzip
import json
import os
import queue
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.second_client import (
    PAN,
    PARENT,
    Answer,
    BackOffice,
    Headers,
    Json,
    Terminal,
    Wire,
    back_office,
    cbc_decrypt,
    climb,
    kcv_aes,
    kcv_hmac,
    moment,
    pin_block,
    provision,
    seal,
    sign,
    unseal,
)

ROOT = Path(__file__).resolve().parents[2]
HOST = ["-m", "terminal.cli.entry", "host", "--listen", "127.0.0.1:0"]
READY = re.compile(r"listening on http://127\.0\.0\.1:(\d+)\n")
READY_WITHIN = 60.0  # seconds; a loaded machine starts slowly


# --- the host process ----------------------------------------------------------------------------


@contextmanager
def host_process(arguments: list[str], home: Path) -> Iterator[Wire]:
    """Run a host until the block ends."""
    environment = {**os.environ, "TILL_HOME": str(home / "till")}
    with (
        (home / "stderr").open("wb") as errors,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=environment,
            text=True,
        ) as process,
    ):
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        pipe = process.stdout
        assert pipe is not None

        def drain() -> None:
            for line in pipe:
                lines.put(line)
            lines.put("")

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        try:
            yield Wire("127.0.0.1", ready_port(lines, home / "stderr"))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join()


def ready_port(lines: queue.SimpleQueue[str], errors: Path) -> int:
    """Wait for the line that names the port."""
    deadline = time.monotonic() + READY_WITHIN
    seen: list[str] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"no ready line in {READY_WITHIN:.0f} seconds, only {seen}") from None
        if match := READY.fullmatch(line):
            return int(match[1])
        assert line, f"the host ended before it was ready: {seen}\n{errors.read_text()}"
        seen.append(line)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    home = tmp_path_factory.mktemp("host")
    with host_process([*HOST, "--data", str(home / "data")], home) as wire:
        yield wire


@pytest.fixture(scope="module")
def till(wire: Wire) -> Terminal:
    """An activated terminal, for what leaves it as it is."""
    return climb(wire, "activated")


@pytest.fixture(scope="module")
def other(wire: Wire) -> Terminal:
    """A second one."""
    return climb(wire, "activated")


@pytest.fixture(scope="module")
def keyed(wire: Wire) -> Terminal:
    """A terminal with keys and a token, and no config yet; it is only ever refused."""
    return climb(wire, "keyed")


# --- what is asked of an answer ------------------------------------------------------------------


def error_of(answer: Answer) -> Json:
    """The error of a refusal, its body being exactly what the reference shows."""
    body = answer.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"code", "message", "details", "trace_id"}
    assert isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["details"], dict)
    assert isinstance(error["trace_id"], str)
    assert error["trace_id"]
    return dict(error)


def assert_refused(answer: Answer, *wanted: str) -> Json:
    """The answer is one of the refusals wanted, each written as in `409 4090`."""
    assert answer.status >= 400, answer.body
    error = error_of(answer)
    assert f"{answer.status} {error['code']}" in wanted, answer.body
    return error


def random_device_id() -> str:
    return f"POS-{secrets.token_hex(4).upper()}"


def unknown_charge() -> str:
    return f"ch_{secrets.token_hex(6)}"


def approved(till: Terminal, value: str = "1200") -> Json:
    """A charge to go on with."""
    answer = till.charge(till.charge_request(value))
    assert answer["status"] == "approved", answer
    return answer


def ledger(wire: Wire) -> list[Json]:
    charges = wire.call("GET", "/sim/ledger").ok()["charges"]
    assert isinstance(charges, list)
    return charges


def ledger_row(wire: Wire, charge_id: str) -> Json:
    (row,) = [row for row in ledger(wire) if row["id"] == charge_id]
    return row


def is_near(text: str, now: datetime | None = None) -> bool:
    return abs(moment(text) - (now or datetime.now(UTC))) < timedelta(seconds=60)


def is_hex(text: str) -> bool:
    return re.fullmatch(r"([0-9A-F]{2})+", text) is not None


# --- health --------------------------------------------------------------------------------------


def test_health_names_the_service(wire: Wire) -> None:
    assert wire.call("GET", "/health/live").ok()["service"] == "vi-backoffice-api"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/no/such/path"), ("GET", "/pos/nothing"), ("POST", "/pos/charge/x/y/z"), ("DELETE", "/pos/charge")],
)
def test_an_error_body_is_sent_even_for_a_path_that_is_none(wire: Wire, method: str, path: str) -> None:
    answer = wire.call(method, path)
    assert 400 <= answer.status < 500
    error_of(answer)


def test_each_refusal_has_its_own_trace_id(wire: Wire) -> None:
    first, second = (error_of(wire.call("POST", "/pos/bootstrap")) for _ in range(2))
    assert first["trace_id"] != second["trace_id"]


# --- provisioning --------------------------------------------------------------------------------


def test_a_provisioned_device_has_exactly_the_documented_fields(wire: Wire) -> None:
    answer = wire.post("/sim/devices", {})
    document = answer.ok(status=201)
    assert set(document) == {"device_id", "terminal_id", "identity", "zmk", "merchant"}
    assert set(document["identity"]) == {"key_id", "secret"}
    assert set(document["zmk"]) == {"key", "kcv"}
    assert set(document["merchant"]) == {"client_id", "client_secret"}


def test_a_device_id_has_eight_hex_digits(wire: Wire) -> None:
    assert re.fullmatch(r"POS-[0-9A-F]{8}", provision(wire).device_id)


def test_devices_differ_in_ids_and_secrets(wire: Wire) -> None:
    first, second = provision(wire), provision(wire)
    assert first.device_id != second.device_id
    assert first.terminal_id != second.terminal_id
    assert first.identity_secret != second.identity_secret
    assert first.document["zmk"]["key"] != second.document["zmk"]["key"]


def test_the_zmk_is_an_aes_256_key_with_its_kcv(wire: Wire) -> None:
    zmk = provision(wire).document["zmk"]
    key = bytes.fromhex(zmk["key"])
    assert len(key) == 32
    assert_kcv(zmk["kcv"], kcv_aes(key))


def assert_kcv(given: str, whole: str) -> None:
    """Three to five bytes, upper-case hex, the start of the value computed here."""
    assert is_hex(given), given
    assert 3 <= len(given) // 2 <= 5
    assert whole.startswith(given)


# --- the merchant's session ----------------------------------------------------------------------

SESSION_PATHS = ("/client/session", "/auth/token")


@pytest.mark.parametrize("path", SESSION_PATHS)
def test_a_client_session_has_exactly_the_documented_fields(wire: Wire, till: Terminal, path: str) -> None:
    office = BackOffice(wire, **till.document["merchant"])
    session = office.login(path)
    assert set(session) == {"access_token", "token_type", "expires_in"}
    assert session["token_type"] == "Bearer"
    assert session["expires_in"] == 300


@pytest.mark.parametrize("path", SESSION_PATHS)
def test_a_token_of_either_path_is_taken(wire: Wire, till: Terminal, path: str) -> None:
    office = BackOffice(wire, **till.document["merchant"])
    office.login(path)
    assert office.initiate()["status"] == "ok"


@pytest.mark.parametrize("path", SESSION_PATHS)
@pytest.mark.parametrize("field", ["client_id", "client_secret", "grant_type"])
def test_a_session_without_a_field_is_400(wire: Wire, till: Terminal, path: str, field: str) -> None:
    body = BackOffice(wire, **till.document["merchant"]).credentials()
    del body[field]
    assert_refused(wire.post(path, body), "400 4000")


@pytest.mark.parametrize(("field", "value"), [("client_id", "nobody"), ("client_secret", "guessed")])
def test_a_session_with_wrong_credentials_is_refused(wire: Wire, till: Terminal, field: str, value: str) -> None:
    body = {**BackOffice(wire, **till.document["merchant"]).credentials(), field: value}
    assert_refused(wire.post("/client/session", body), "400 4000", "401 4010")


def test_a_session_by_another_grant_is_refused(wire: Wire, till: Terminal) -> None:
    body = {**BackOffice(wire, **till.document["merchant"]).credentials(), "grant_type": "password"}
    assert_refused(wire.post("/client/session", body), "400 4000", "422 4220")


NOT_A_JSON_OBJECT = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{}", b"[" * 100_000]


@pytest.mark.parametrize("body", NOT_A_JSON_OBJECT, ids=lambda body: repr(body[:8]))
def test_a_session_from_a_body_that_is_no_json_object_is_400(wire: Wire, body: bytes) -> None:
    answer = wire.call("POST", "/client/session", {"Content-Type": "application/json"}, body)
    assert_refused(answer, "400 4000")


def test_initiate_answers_with_the_channel(till: Terminal) -> None:
    answer = back_office(till).initiate()
    assert set(answer) == {"status", "merchant", "channel"}
    assert answer["status"] == "ok"
    assert answer["channel"] == "pos"
    assert isinstance(answer["merchant"], dict)


def test_initiate_without_a_host_is_400(wire: Wire, till: Terminal) -> None:
    assert_refused(wire.post("/session/initiate", {}, back_office(till).headers()), "400 4000")


BEARER_CALLS = [("/session/initiate", {"host": "merchant.viopay.io"}), ("/pos/claim", {"pairing_code": "K7M3NP"})]


@pytest.mark.parametrize(("path", "body"), BEARER_CALLS)
def test_a_bearer_call_without_authorization_is_400(wire: Wire, path: str, body: Json) -> None:
    assert_refused(wire.post(path, body), "400 4000")


@pytest.mark.parametrize(("path", "body"), BEARER_CALLS)
def test_a_bearer_call_with_an_unknown_token_is_401(wire: Wire, path: str, body: Json) -> None:
    assert_refused(wire.post(path, body, {"Authorization": "Bearer abc.def.ghi"}), "401 4010")


@pytest.mark.parametrize("scheme", ["Basic", "Attestation"])
@pytest.mark.parametrize(("path", "body"), BEARER_CALLS)
def test_a_bearer_call_under_another_scheme_is_401(
    wire: Wire, till: Terminal, path: str, body: Json, scheme: str
) -> None:
    token = back_office(till).access_token
    assert_refused(wire.post(path, body, {"Authorization": f"{scheme} {token}"}), "401 4010")


def test_a_spoilt_bearer_token_is_401(till: Terminal) -> None:
    office = back_office(till)
    token = office.access_token
    office.access_token = token[:-2] + ("A" if token[-2] != "A" else "Q") + token[-1]
    assert_refused(office.claim("K7M3NP"), "401 4010")


# --- the activation level: bootstrap, pairing-code, status, attest -------------------------------

ACTIVATION_CALLS = [("POST", "/pos/bootstrap"), ("POST", "/pos/pairing-code"), ("GET", "/pos/status")]
ACTIVATION_HEADERS = ["X-Device-Id", "User-Agent", "X-Client-Type"]


@pytest.mark.parametrize(("method", "path"), ACTIVATION_CALLS)
@pytest.mark.parametrize("name", ACTIVATION_HEADERS)
def test_an_activation_call_without_a_header_is_400(
    wire: Wire, till: Terminal, method: str, path: str, name: str
) -> None:
    headers = till.activation_headers()
    del headers[name]
    assert_refused(wire.call(method, path, headers), "400 4000")


@pytest.mark.parametrize(("method", "path"), ACTIVATION_CALLS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Device-Id", ""),
        ("X-Device-Id", "POS-12"),
        ("X-Device-Id", "POS-GGGGGGGG"),
        ("X-Device-Id", "POS-123456789"),
        ("X-Device-Id", "TID-12345678"),
        ("User-Agent", "curl/8.0"),
        ("User-Agent", "Viopay-POS/"),
        ("User-Agent", "Viopay-POS/one (Linux; x)"),
        ("X-Client-Type", ""),
        ("X-Client-Type", "web"),
    ],
)
def test_an_activation_call_with_a_malformed_header_is_400(
    wire: Wire, till: Terminal, method: str, path: str, name: str, value: str
) -> None:
    headers = {**till.activation_headers(), name: value}
    assert_refused(wire.call(method, path, headers), "400 4000")


@pytest.mark.parametrize(("method", "path"), ACTIVATION_CALLS)
def test_an_activation_call_of_an_unknown_device_is_404(wire: Wire, till: Terminal, method: str, path: str) -> None:
    headers = {**till.activation_headers(), "X-Device-Id": random_device_id()}
    assert_refused(wire.call(method, path, headers), "404 4040")


@pytest.mark.parametrize(("method", "path"), ACTIVATION_CALLS)
@pytest.mark.parametrize("version", ["0.0.9", "0.0.10", "0.0.99"])
def test_an_activation_call_of_too_old_a_version_is_426(
    wire: Wire, till: Terminal, method: str, path: str, version: str
) -> None:
    headers = {**till.activation_headers(), "User-Agent": f"Viopay-POS/{version} (Linux; x)"}
    assert_refused(wire.call(method, path, headers), "426 4260")


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1", "0.10.0", "1.0.0", "10.0.0"])
def test_a_version_not_below_the_least_is_taken(wire: Wire, till: Terminal, version: str) -> None:
    headers = {**till.activation_headers(), "User-Agent": f"Viopay-POS/{version} (Linux; x)"}
    wire.call("POST", "/pos/bootstrap", headers).ok()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "nonsense", "application/json"]
)
def test_a_content_type_is_ignored_where_there_is_no_body(wire: Wire, kind: str) -> None:
    till = provision(wire)
    for method, path in ACTIVATION_CALLS:
        wire.call(method, path, {**till.activation_headers(), "Content-Type": kind}).ok()


def test_bootstrap_answers_with_exactly_the_documented_fields(wire: Wire) -> None:
    answer = provision(wire).bootstrap()
    assert set(answer) == {"status", "server_time", "min_supported_version"}
    assert answer["status"] == "ok"
    assert answer["min_supported_version"] == "0.1.0"
    assert is_near(answer["server_time"])


def test_a_pairing_code_answers_with_exactly_the_documented_fields(wire: Wire) -> None:
    answer = climb(wire, "bootstrapped").pairing_code()
    assert set(answer) == {"pairing_code", "expires_in_sec"}
    # a code asked for twice may be the first one still, a moment older
    assert answer["expires_in_sec"] == 300


def test_pairing_codes_avoid_what_is_mistaken(wire: Wire) -> None:
    for _ in range(20):
        assert re.fullmatch(r"[A-HJ-NP-Z2-9]{6}", climb(wire, "bootstrapped").pairing_code()["pairing_code"])


def test_a_pairing_code_before_bootstrap_is_409(wire: Wire) -> None:
    till = provision(wire)
    assert_refused(wire.call("POST", "/pos/pairing-code", till.activation_headers()), "409 4090")


def test_a_device_has_one_active_code_at_most(wire: Wire) -> None:
    till = climb(wire, "bootstrapped")
    first, second = (till.pairing_code()["pairing_code"] for _ in range(2))
    if first != second:
        assert_refused(back_office(till).claim(first), "404 4040", "409 4090")
    back_office(till).claim(second).ok()


STATUSES = {
    "bootstrapped": {"device_status": "inactive", "is_claimed": False, "pairing_code_status": "none"},
    "pairing": {"device_status": "inactive", "is_claimed": False, "pairing_code_status": "pending"},
    "claimed": {"device_status": "claimed", "is_claimed": True, "pairing_code_status": "used"},
    "activated": {"device_status": "activated", "is_claimed": True, "pairing_code_status": "used"},
}


@pytest.mark.parametrize("level", STATUSES)
def test_status_follows_the_levels(wire: Wire, level: str) -> None:
    assert climb(wire, level).status() == STATUSES[level]


# --- claim ---------------------------------------------------------------------------------------


def test_a_claim_names_the_device(wire: Wire) -> None:
    till = climb(wire, "bootstrapped")
    code = till.pairing_code()["pairing_code"]
    answer = back_office(till).claim(code).ok()
    assert answer == {"status": "claimed", "device_id": till.device_id}


def test_a_claim_with_an_unknown_code_is_404(till: Terminal) -> None:
    assert_refused(back_office(till).claim("ZZZZZZ"), "404 4040")


def test_a_claim_in_a_session_that_is_not_initiated_is_refused(wire: Wire) -> None:
    till = climb(wire, "bootstrapped")
    code = till.pairing_code()["pairing_code"]
    office = BackOffice(wire, **till.document["merchant"])
    office.login()
    assert_refused(office.claim(code), "401 4010", "403 4030", "409 4090")
    assert till.status()["is_claimed"] is False


@pytest.mark.parametrize("body", [{}, {"pairing_code": None}, {"pairing_code": 123456}, {"pairing_code": ["A"]}])
def test_a_claim_with_a_malformed_body_is_400(wire: Wire, till: Terminal, body: Json) -> None:
    assert_refused(wire.post("/pos/claim", body, back_office(till).headers()), "400 4000")


@pytest.mark.parametrize("body", NOT_A_JSON_OBJECT, ids=lambda body: repr(body[:8]))
def test_a_claim_with_a_body_that_is_no_json_object_is_400(wire: Wire, till: Terminal, body: bytes) -> None:
    headers = {**back_office(till).headers(), "Content-Type": "application/json"}
    assert_refused(wire.call("POST", "/pos/claim", headers, body), "400 4000")


@pytest.fixture(scope="module")
def stranger(wire: Wire, till: Terminal) -> Terminal:
    """A device of another merchant than `till`'s."""
    for _ in range(10):
        found = provision(wire)
        if found.document["merchant"] != till.document["merchant"]:
            return found
    pytest.skip("every device has the same merchant here, and the reference does not forbid it")


def test_a_claim_of_another_merchants_device_is_403(till: Terminal, stranger: Terminal) -> None:
    stranger.bootstrap()
    code = stranger.pairing_code()["pairing_code"]
    assert_refused(back_office(till).claim(code), "403 4030")


def test_a_refused_claim_leaves_the_device_unclaimed(till: Terminal, stranger: Terminal) -> None:
    stranger.bootstrap()
    back_office(till).claim(stranger.pairing_code()["pairing_code"])
    assert stranger.status()["is_claimed"] is False


# --- signatures: attestation and charges ---------------------------------------------------------


@dataclass(frozen=True)
class Signed:
    """One call that is signed, and how to sign it."""

    method: str
    path: str
    level: str
    headers: Callable[..., Headers]
    body: bytes = b""

    def send(self, wire: Wire, headers: Headers) -> Answer:
        return wire.call(self.method, self.path, headers, self.body or None)


def signed_call(name: str, till: Terminal, charge_id: str) -> Signed:
    """A call that would be in order, were it not for what the test does to its headers."""
    if name == "attest":
        return Signed("POST", "/pos/attest", "attest", till.attest_headers)
    refund = {"amount": {"value": "100", "currency": "EUR"}, "reason": "x"}
    method, path, content = {
        "charge": ("POST", "/pos/charge", till.charge_request("1200")),
        "refund": ("POST", f"/pos/charge/{charge_id}/refund", refund),
        "cancel": ("POST", f"/pos/charge/{charge_id}/cancel", None),
        "reverse": ("POST", f"/pos/charge/{charge_id}/reverse", None),
        "lookup": ("GET", f"/pos/charge/{charge_id}", None),
        "lookup by reference": ("GET", "/pos/charge?reference=order-17", None),
        "refund status": ("GET", "/pos/refund/rf_abc123def456", None),
        "heartbeat": ("POST", "/pos/heartbeat", {"uptime_sec": 1, "pending": 0, "version": "1.0.0"}),
    }[name]
    body = till.seal(content) if content else b""
    return Signed(method, path, "hmac", lambda **how: till.hmac_headers(body, **how), body)


HMAC_CALLS = [
    "charge",
    "refund",
    "cancel",
    "reverse",
    "lookup",
    "lookup by reference",
    "refund status",
    "heartbeat",
]


@pytest.fixture(params=["attest", *HMAC_CALLS])
def signed(request: pytest.FixtureRequest, till: Terminal, a_charge: str) -> Signed:
    return signed_call(request.param, till, a_charge)


@pytest.fixture(scope="module")
def a_charge(till: Terminal) -> str:
    """A charge that nothing happens to."""
    return str(approved(till)["id"])


SIGNED_HEADERS = ["User-Agent", "X-Client-Type", "X-Key-Id", "X-Timestamp", "X-Nonce", "X-Signature"]


@pytest.mark.parametrize("name", SIGNED_HEADERS)
def test_a_signed_call_without_a_header_is_400(wire: Wire, signed: Signed, name: str) -> None:
    headers = signed.headers()
    del headers[name]
    assert_refused(signed.send(wire, headers), "400 4000")


def test_a_signed_call_without_the_id_of_its_sender_is_400(wire: Wire, signed: Signed) -> None:
    headers = signed.headers()
    del headers["X-Device-Id" if signed.level == "attest" else "X-Terminal-Id"]
    assert_refused(signed.send(wire, headers), "400 4000")


@pytest.mark.parametrize(("name", "value"), [("User-Agent", "curl/8.0"), ("X-Client-Type", "web")])
def test_a_signed_call_with_a_malformed_header_is_400(wire: Wire, signed: Signed, name: str, value: str) -> None:
    assert_refused(signed.send(wire, {**signed.headers(), name: value}), "400 4000")


def test_a_signed_call_of_too_old_a_version_is_426(wire: Wire, signed: Signed) -> None:
    headers = {**signed.headers(), "User-Agent": "Viopay-POS/0.0.9 (Linux; x)"}
    assert_refused(signed.send(wire, headers), "426 4260")


def test_a_wrong_signature_is_401(wire: Wire, signed: Signed) -> None:
    headers = {**signed.headers(), "X-Signature": sign(secrets.token_bytes(32), b"anything")}
    assert_refused(signed.send(wire, headers), "401 4010")


@pytest.mark.parametrize("bit", [0, 7, 130, 255])
def test_a_signature_with_one_bit_flipped_is_401(wire: Wire, signed: Signed, bit: int) -> None:
    headers = signed.headers()
    raw = bytearray(b64decode(headers["X-Signature"].removeprefix("v1=")))
    raw[bit // 8] ^= 1 << bit % 8
    headers["X-Signature"] = "v1=" + b64encode(raw).decode()
    assert_refused(signed.send(wire, headers), "401 4010")


def test_a_truncated_signature_is_refused(wire: Wire, signed: Signed) -> None:
    headers = signed.headers()
    raw = b64decode(headers["X-Signature"].removeprefix("v1="))
    headers["X-Signature"] = "v1=" + b64encode(raw[:16]).decode()
    assert_refused(signed.send(wire, headers), "400 4000", "401 4010")


@pytest.mark.parametrize("spoil", [lambda s: s[3:], lambda s: "v2=" + s[3:], lambda s: "v1=", lambda s: "v1=!*!"])
def test_a_signature_in_another_form_is_refused(wire: Wire, signed: Signed, spoil: Callable[[str], str]) -> None:
    headers = signed.headers()
    headers["X-Signature"] = spoil(headers["X-Signature"])
    assert_refused(signed.send(wire, headers), "400 4000", "401 4010")


def test_an_unknown_key_id_is_401(wire: Wire, signed: Signed) -> None:
    assert_refused(signed.send(wire, {**signed.headers(), "X-Key-Id": "key_of_nobody"}), "401 4010")


@pytest.mark.parametrize(
    "shift",
    [timedelta(minutes=-6), timedelta(hours=-1), timedelta(minutes=2), timedelta(hours=1), timedelta(days=3650)],
    ids=str,
)
def test_a_timestamp_outside_the_window_is_401(
    wire: Wire, till: Terminal, signed: Signed, shift: timedelta
) -> None:
    assert_refused(signed.send(wire, signed.headers(timestamp=till.timestamp(shift))), "401 4010")


@pytest.mark.parametrize("value", ["", "yesterday", "1765635930", "2025-12-13", "2025-13-01T00:00:00Z"])
def test_a_malformed_timestamp_is_400(wire: Wire, signed: Signed, value: str) -> None:
    assert_refused(signed.send(wire, signed.headers(timestamp=value)), "400 4000")


@pytest.mark.parametrize("nonce", ["", "a", "abcdefghijk"])
def test_a_short_nonce_is_400(wire: Wire, signed: Signed, nonce: str) -> None:
    assert_refused(signed.send(wire, signed.headers(nonce=nonce)), "400 4000")


@pytest.mark.parametrize("nonce", ["abcdefghijkl-mnop", "abcdefgh ijklmnop", "../../../../etc/passwd"])
def test_a_nonce_that_is_not_alphanumeric_is_400(wire: Wire, signed: Signed, nonce: str) -> None:
    assert_refused(signed.send(wire, signed.headers(nonce=nonce)), "400 4000")


def test_attest_takes_a_timestamp_inside_the_window(wire: Wire) -> None:
    till = climb(wire, "claimed")
    for shift in (timedelta(minutes=-4, seconds=-30), timedelta(seconds=30)):
        wire.call("POST", "/pos/attest", till.attest_headers(timestamp=till.timestamp(shift))).ok()


def test_charges_take_a_timestamp_inside_the_window(wire: Wire, till: Terminal, a_charge: str) -> None:
    for shift in (timedelta(minutes=-4, seconds=-30), timedelta(seconds=30)):
        headers = till.hmac_headers(timestamp=till.timestamp(shift))
        wire.call("GET", f"/pos/charge/{a_charge}", headers).ok()


def test_a_timestamp_may_have_fractions(wire: Wire, till: Terminal, a_charge: str) -> None:
    headers = till.hmac_headers(timestamp=till.timestamp().replace("Z", ".123Z"))
    wire.call("GET", f"/pos/charge/{a_charge}", headers).ok()


def test_a_nonce_of_twelve_is_long_enough(wire: Wire, till: Terminal, a_charge: str) -> None:
    headers = till.hmac_headers(nonce=secrets.token_hex(6))
    wire.call("GET", f"/pos/charge/{a_charge}", headers).ok()


def test_an_attestation_repeated_word_for_word_is_401(wire: Wire) -> None:
    till = climb(wire, "claimed")
    headers = till.attest_headers()
    wire.call("POST", "/pos/attest", headers).ok()
    assert_refused(wire.call("POST", "/pos/attest", headers), "401 4010")


def test_a_nonce_seen_before_is_401_for_attest_though_signed_anew(wire: Wire) -> None:
    till = climb(wire, "claimed")
    nonce = secrets.token_hex(12)
    wire.call("POST", "/pos/attest", till.attest_headers(nonce=nonce)).ok()
    headers = till.attest_headers(nonce=nonce, timestamp=till.timestamp(timedelta(seconds=-9)))
    assert_refused(wire.call("POST", "/pos/attest", headers), "401 4010")


@pytest.mark.parametrize("name", HMAC_CALLS)
def test_a_nonce_seen_before_is_401_on_every_call(wire: Wire, till: Terminal, a_charge: str, name: str) -> None:
    nonce = secrets.token_hex(12)
    wire.call("GET", f"/pos/charge/{a_charge}", till.hmac_headers(nonce=nonce)).ok()
    call = signed_call(name, till, a_charge)
    headers = call.headers(nonce=nonce, timestamp=till.timestamp(timedelta(seconds=-9)))
    assert_refused(call.send(wire, headers), "401 4010")


def test_a_charge_repeated_word_for_word_is_401(wire: Wire, till: Terminal) -> None:
    body = till.seal(till.charge_request("1200"))
    headers = till.hmac_headers(body, idempotency_key=secrets.token_hex(16))
    wire.call("POST", "/pos/charge", headers, body).ok()
    assert_refused(wire.call("POST", "/pos/charge", headers, body), "401 4010")


def test_an_attestation_signed_with_a_trailing_newline_is_401(wire: Wire) -> None:
    till = climb(wire, "claimed")
    headers = till.attest_headers()
    message = "\n".join([till.device_id, headers["X-Key-Id"], headers["X-Timestamp"], headers["X-Nonce"], ""])
    headers["X-Signature"] = sign(till.identity_secret, message.encode())
    assert_refused(wire.call("POST", "/pos/attest", headers), "401 4010")


def test_an_attestation_under_the_encoded_secret_is_401(wire: Wire) -> None:
    till = climb(wire, "claimed")
    headers = till.attest_headers()
    message = "\n".join([till.device_id, headers["X-Key-Id"], headers["X-Timestamp"], headers["X-Nonce"]])
    headers["X-Signature"] = sign(till.document["identity"]["secret"].encode(), message.encode())
    assert_refused(wire.call("POST", "/pos/attest", headers), "401 4010")


def test_an_attestation_with_another_devices_secret_is_401(wire: Wire, other: Terminal) -> None:
    till = climb(wire, "claimed")
    headers = {**other.attest_headers(), "X-Device-Id": till.device_id}
    assert_refused(wire.call("POST", "/pos/attest", headers), "401 4010")


def test_an_attestation_of_an_unknown_device_is_refused(wire: Wire, till: Terminal) -> None:
    headers = {**till.attest_headers(), "X-Device-Id": random_device_id()}
    assert_refused(wire.call("POST", "/pos/attest", headers), "401 4010", "404 4040")


def charge_signed_over(
    wire: Wire, till: Terminal, message: Callable[[Headers, bytes], bytes], key: bytes
) -> Answer:
    """A charge whose signature covers something else, or is made with another key."""
    body = till.seal(till.charge_request("1200"))
    headers = till.hmac_headers(body)
    headers["X-Signature"] = sign(key, message(headers, body))
    return wire.call("POST", "/pos/charge", headers, body)


def prefixed(headers: Headers, body: bytes) -> bytes:
    names = ("X-Terminal-Id", "X-Key-Id", "X-Timestamp", "X-Nonce")
    return "".join(f"{headers[name]}\n" for name in names).encode() + body


def test_a_charge_signed_over_terminal_key_time_nonce_and_body_is_taken(wire: Wire, till: Terminal) -> None:
    charge_signed_over(wire, till, prefixed, till.keys["mac"].value).ok()


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(lambda headers, body: body, id="the body alone"),
        pytest.param(lambda headers, body: prefixed(headers, b""), id="no body"),
        pytest.param(lambda headers, body: prefixed(headers, body) + b"\n", id="a trailing newline"),
        pytest.param(lambda headers, body: prefixed(headers, body.lower()), id="another body"),
        pytest.param(lambda headers, body: prefixed(headers, json.dumps(json.loads(body)).encode()[:-1]), id="cut"),
    ],
)
def test_a_charge_signed_over_anything_else_is_401(
    wire: Wire, till: Terminal, message: Callable[[Headers, bytes], bytes]
) -> None:
    assert_refused(charge_signed_over(wire, till, message, till.keys["mac"].value), "401 4010")


def test_a_charge_signed_over_its_plaintext_is_401(wire: Wire, till: Terminal) -> None:
    plaintext = json.dumps(till.charge_request("1200")).encode()
    body = till.seal(plaintext)
    headers = till.hmac_headers(body)
    headers["X-Signature"] = sign(till.keys["mac"].value, prefixed(headers, plaintext))
    assert_refused(wire.call("POST", "/pos/charge", headers, body), "401 4010")


@pytest.mark.parametrize("role", ["tmk", "kek", "msk", "tpk", "tdk"])
def test_a_charge_signed_with_another_key_of_the_set_is_401(wire: Wire, till: Terminal, role: str) -> None:
    assert_refused(charge_signed_over(wire, till, prefixed, till.keys[role].value), "401 4010")


def test_a_charge_signed_with_the_identity_secret_is_401(wire: Wire, till: Terminal) -> None:
    assert_refused(charge_signed_over(wire, till, prefixed, till.identity_secret), "401 4010")


def test_a_body_altered_after_signing_is_401(wire: Wire, till: Terminal) -> None:
    body = till.seal(till.charge_request("1200"))
    headers = till.hmac_headers(body)
    assert_refused(wire.call("POST", "/pos/charge", headers, body + b" "), "401 4010")


@pytest.mark.parametrize("name", ["X-Timestamp", "X-Nonce"])
def test_a_header_altered_after_signing_is_401(wire: Wire, till: Terminal, a_charge: str, name: str) -> None:
    headers = till.hmac_headers()
    headers[name] = till.timestamp(timedelta(seconds=-30)) if name == "X-Timestamp" else secrets.token_hex(12)
    assert_refused(wire.call("GET", f"/pos/charge/{a_charge}", headers), "401 4010")


def test_another_terminals_id_with_our_signature_is_401(
    wire: Wire, till: Terminal, other: Terminal, a_charge: str
) -> None:
    headers = till.hmac_headers()
    headers["X-Terminal-Id"] = other.terminal_id
    headers["X-Signature"] = sign(till.keys["mac"].value, prefixed(headers, b""))
    assert_refused(wire.call("GET", f"/pos/charge/{a_charge}", headers), "401 4010")


# --- attest and the attestation level ------------------------------------------------------------


def test_attest_answers_with_exactly_the_documented_fields(wire: Wire) -> None:
    answer = climb(wire, "claimed").attest()
    assert set(answer) == {"status", "attestation_token", "expires_in_sec"}
    assert answer["status"] == "attested"
    assert re.fullmatch(r"att_\S+", answer["attestation_token"])
    assert answer["expires_in_sec"] == 300


@pytest.mark.parametrize("level", ["bootstrapped", "pairing"])
def test_attest_before_claim_is_409(wire: Wire, level: str) -> None:
    till = climb(wire, level)
    assert_refused(wire.call("POST", "/pos/attest", till.attest_headers()), "409 4090")


ATTESTED_CALLS = ["/pos/keys", "/pos/config", "/pos/terminal-parameters", "/pos/activate"]
READY_FLAGS = {"emv_ready": True, "keys_installed": True, "network_ok": True}


def attested_call(wire: Wire, keyed: Terminal, path: str, headers: Headers) -> Answer:
    body = keyed.seal(READY_FLAGS) if path == "/pos/activate" else None
    return wire.call("POST", path, headers, body)


@pytest.mark.parametrize("path", ATTESTED_CALLS)
@pytest.mark.parametrize("name", ["Authorization", "X-Device-Id"])
def test_an_attested_call_without_a_header_is_400(wire: Wire, keyed: Terminal, path: str, name: str) -> None:
    headers = keyed.attested_headers()
    del headers[name]
    assert_refused(attested_call(wire, keyed, path, headers), "400 4000")


@pytest.mark.parametrize("path", ATTESTED_CALLS)
def test_an_attested_call_with_an_unknown_token_is_401(wire: Wire, keyed: Terminal, path: str) -> None:
    token = "att_" + secrets.token_hex(len(keyed.token) // 2)
    headers = {**keyed.attested_headers(), "Authorization": f"Attestation {token}"}
    assert_refused(attested_call(wire, keyed, path, headers), "401 4010")


@pytest.mark.parametrize("path", ATTESTED_CALLS)
@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_an_attested_call_under_another_scheme_is_401(wire: Wire, keyed: Terminal, path: str, scheme: str) -> None:
    headers = {**keyed.attested_headers(), "Authorization": f"{scheme} {keyed.token}"}
    assert_refused(attested_call(wire, keyed, path, headers), "401 4010")


@pytest.mark.parametrize("path", ATTESTED_CALLS)
def test_an_attested_call_with_a_merchants_token_is_401(wire: Wire, keyed: Terminal, path: str) -> None:
    token = back_office(keyed).access_token
    for scheme in ("Attestation", "Bearer"):
        headers = {**keyed.attested_headers(), "Authorization": f"{scheme} {token}"}
        assert_refused(attested_call(wire, keyed, path, headers), "401 4010")


@pytest.mark.parametrize("path", ATTESTED_CALLS)
def test_a_token_bound_to_another_device_is_401(wire: Wire, keyed: Terminal, other: Terminal, path: str) -> None:
    headers = {**keyed.attested_headers(), "X-Device-Id": other.device_id}
    assert_refused(attested_call(wire, keyed, path, headers), "401 4010")


def test_an_attestation_token_is_no_bearer_token(keyed: Terminal) -> None:
    office = back_office(keyed)
    office.access_token = keyed.token
    assert_refused(office.claim("K7M3NP"), "401 4010")


@pytest.mark.parametrize("path", ["/pos/config", "/pos/terminal-parameters"])
def test_what_needs_keys_is_409_before_keys(wire: Wire, path: str) -> None:
    assert_refused(climb(wire, "attested").attested(path), "409 4090")


@pytest.mark.parametrize("level", ["keyed", "configured"])
def test_activate_before_parameters_is_409(wire: Wire, level: str) -> None:
    till = climb(wire, level)
    assert_refused(till.activate(), "409 4090")
    assert till.status()["device_status"] == "claimed"


def test_activate_before_config_is_409(wire: Wire) -> None:
    till = climb(wire, "keyed")
    till.attested("/pos/terminal-parameters")
    assert_refused(till.activate(), "409 4090")
    assert till.status()["device_status"] == "claimed"


@pytest.mark.parametrize("flag", READY_FLAGS)
def test_activate_with_a_false_flag_is_409(wire: Wire, flag: str) -> None:
    till = climb(wire, "parameterised")
    assert_refused(till.activate(**{flag: False}), "409 4090")
    assert till.status()["device_status"] == "claimed"


@pytest.mark.parametrize("flag", READY_FLAGS)
def test_activate_without_a_flag_is_400(wire: Wire, flag: str) -> None:
    till = climb(wire, "parameterised")
    flags = {name: True for name in READY_FLAGS if name != flag}
    assert_refused(till.attested("/pos/activate", till.seal(flags)), "400 4000")


@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_activate_with_a_flag_that_is_no_boolean_is_400(wire: Wire, value: Any) -> None:
    till = climb(wire, "parameterised")
    assert_refused(till.activate(network_ok=value), "400 4000")


def test_activate_succeeds_after_it_was_refused(wire: Wire) -> None:
    till = climb(wire, "parameterised")
    till.activate(network_ok=False)
    till.activate().ok()
    assert till.status()["device_status"] == "activated"


def test_activate_answers_with_exactly_the_documented_fields(wire: Wire) -> None:
    till = climb(wire, "parameterised")
    answer = till.open(till.activate().ok())
    assert set(answer) == {"status", "activated_at"}
    assert isinstance(answer["status"], str)
    assert is_near(answer["activated_at"])


# --- keys ----------------------------------------------------------------------------------------

ROLES = list(PARENT)
POLICY = {  # role: usage and algorithm, modes of use
    "tmk": ({"K1A", "K0A"}, {"D", "B"}),
    "kek": ({"K1A", "K0A"}, {"D", "B"}),
    "msk": ({"D0A"}, {"B"}),
    "tdk": ({"D0A", "D3A"}, {"E", "B"}),
    "tpk": ({"P0A"}, {"E"}),
    "mac": ({"M7H"}, {"G", "C"}),
}


def test_a_key_set_has_exactly_the_documented_fields(wire: Wire) -> None:
    answer = climb(wire, "attested").take_keys()
    assert set(answer) == {"key_set", "transport", "keys"}
    assert set(answer["key_set"]) == {"key_set_id", "issued_at", "expires_at"}
    assert set(answer["keys"]) == set(ROLES)
    for entry in answer["keys"].values():
        assert set(entry) == {"key_id", "key_block", "usage", "kcv"}


def test_the_transport_of_keys_is_tr31_under_aes_256(wire: Wire) -> None:
    answer = climb(wire, "attested").take_keys()
    assert answer["transport"] == {"format": "TR31", "encryption": "AES-256", "wrapped_under": "kek"}


def test_a_key_set_is_issued_now_and_expires_later(till: Terminal) -> None:
    assert moment(till.keys.issued_at) < moment(till.keys.expires_at)
    assert moment(till.keys.expires_at) > datetime.now(UTC)
    assert abs(moment(till.keys.issued_at) - datetime.now(UTC)) < timedelta(minutes=10)


@pytest.mark.parametrize("role", ROLES)
def test_a_key_block_is_version_d(till: Terminal, role: str) -> None:
    assert till.keys[role].version == "D"


@pytest.mark.parametrize("role", ROLES)
def test_a_key_blocks_header_fits_the_role(till: Terminal, role: str) -> None:
    key = till.keys[role]
    usages, modes = POLICY[role]
    assert key.usage + key.algorithm in usages
    assert key.mode in modes


@pytest.mark.parametrize("role", ROLES)
def test_a_key_has_32_bytes(till: Terminal, role: str) -> None:
    assert len(till.keys[role].value) == 32


@pytest.mark.parametrize("role", ROLES)
def test_a_keys_kcv_is_right(till: Terminal, role: str) -> None:
    key = till.keys[role]
    assert_kcv(key.kcv, kcv_hmac(key.value) if role == "mac" else kcv_aes(key.value))


def test_the_mac_key_names_its_hash(till: Terminal) -> None:
    assert till.keys["mac"].optional["HM"] == "21"


def test_no_two_roles_hold_the_same_key(till: Terminal) -> None:
    assert len({key.value for key in till.keys.keys.values()}) == len(ROLES)


def test_no_two_roles_have_the_same_key_id(till: Terminal) -> None:
    assert len({key.key_id for key in till.keys.keys.values()}) == len(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_no_two_devices_have_the_same_key(till: Terminal, other: Terminal, role: str) -> None:
    assert till.keys[role].value != other.keys[role].value


def rotated(wire: Wire) -> Terminal:
    till = climb(wire, "activated")
    till.attest()
    till.take_keys()
    return till


def test_a_rotation_makes_a_new_set(wire: Wire) -> None:
    old, new = rotated(wire).key_sets
    assert old.key_set_id != new.key_set_id
    for role in ("msk", "tpk", "tdk", "mac"):
        assert old[role].value != new[role].value


def test_after_a_rotation_the_new_set_takes_charges(wire: Wire) -> None:
    till = rotated(wire)
    approved(till)


def test_after_a_rotation_the_old_set_goes_on(wire: Wire) -> None:
    till = rotated(wire)
    old = till.key_sets[0]
    request = till.charge_request("1200", entry_mode="manual")
    request["card"]["pan"] = seal(old["tdk"].value, PAN.encode())
    body = till.seal(request, old)
    headers = till.hmac_headers(body, keys=old)
    answer = till.open(wire.call("POST", "/pos/charge", headers, body).ok())
    assert answer["reference"] == request["reference"]


# --- envelopes, config and parameters ------------------------------------------------------------

ENVELOPE = {"format", "ciphertext", "initialization_vector", "mode", "key_kcv"}


def assert_envelope(till: Terminal, envelope: Json) -> None:
    assert set(envelope) - {"content_encoding"} == ENVELOPE
    assert envelope["format"] == "TR31-DATA"
    assert envelope["mode"] == "CBC"
    assert is_hex(envelope["ciphertext"])
    assert is_hex(envelope["initialization_vector"])
    assert len(envelope["initialization_vector"]) == 32
    assert_kcv(envelope["key_kcv"], kcv_aes(till.keys["msk"].value))


def sealed_answers(till: Terminal) -> dict[str, Callable[[], Answer]]:
    """Calls whose answers are plain envelopes."""
    charge_id = approved(till)["id"]
    refund = till.seal({"amount": {"value": "100", "currency": "EUR"}, "reason": "x"})
    heartbeat = till.seal({"uptime_sec": 1, "pending": 0, "version": "1.0.0"})
    return {
        "config": lambda: till.attested("/pos/config"),
        "activate": till.activate,
        "charge": lambda: till.send("POST", "/pos/charge", till.seal(till.charge_request("1200"))),
        "lookup": lambda: till.send("GET", f"/pos/charge/{charge_id}"),
        "lookup by reference": lambda: till.send("GET", "/pos/charge?reference=order-17"),
        "refund": lambda: till.send("POST", f"/pos/charge/{charge_id}/refund", refund),
        "refund status": lambda: till.send("GET", f"/pos/refund/{till.refund(charge_id, '1')['id']}"),
        "cancel": lambda: till.send("POST", f"/pos/charge/{approved(till)['id']}/cancel"),
        "reverse": lambda: till.send("POST", f"/pos/charge/{approved(till)['id']}/reverse"),
        "heartbeat": lambda: till.send("POST", "/pos/heartbeat", heartbeat),
    }


@pytest.mark.parametrize("name", ["config", "activate"])
def test_an_activation_answer_is_an_envelope_under_msk(wire: Wire, name: str) -> None:
    till = climb(wire, "parameterised")
    answer = {"config": lambda: till.attested("/pos/config"), "activate": till.activate}[name]()
    assert_envelope(till, answer.ok())
    till.open(answer.json())


@pytest.mark.parametrize(
    "name",
    ["charge", "lookup", "lookup by reference", "refund", "refund status", "cancel", "reverse", "heartbeat"],
)
def test_a_charges_answer_is_an_envelope_under_msk(till: Terminal, name: str) -> None:
    answer = sealed_answers(till)[name]()
    if name == "lookup by reference" and answer.status == 404:
        return  # a reference that nobody used may be 404 as well as an empty list
    assert_envelope(till, answer.ok())
    till.open(answer.json())


def test_every_envelope_has_a_fresh_iv(till: Terminal, a_charge: str) -> None:
    answers = [till.send("GET", f"/pos/charge/{a_charge}").ok() for _ in range(8)]
    assert len({answer["initialization_vector"] for answer in answers}) == 8


@pytest.mark.parametrize("case", [str.lower, str.upper, str.swapcase])
def test_hex_of_either_case_is_taken(till: Terminal, case: Callable[[str], str]) -> None:
    request = till.charge_request("1200")
    envelope = seal(till.keys["msk"].value, json.dumps(request).encode())
    half = len(envelope["ciphertext"]) // 2
    envelope["ciphertext"] = case(envelope["ciphertext"][:half]) + envelope["ciphertext"][half:]
    envelope["initialization_vector"] = case(envelope["initialization_vector"])
    answer = till.open(till.send("POST", "/pos/charge", json.dumps(envelope).encode()).ok())
    assert answer["reference"] == request["reference"]


CONFIG: dict[str, set[str]] = {
    "terminal": {"terminal_id", "device_id"},
    "merchant": {
        "merchant_id",
        "name",
        "merchant_key",
        "category_code",
        "tip_info",
        "tax_info",
        "surcharge_info",
    },
    "location": {"name", "address", "timezone", "country", "currency"},
    "emv": {"aids", "terminal_capabilities", "additional_capabilities", "terminal_type"},
    "security": {"pin_required", "contactless_limit", "cvm_limit", "fallback_allowed", "offline"},
    "branding": {"theme", "logo_url"},
    "intervals": {"heartbeat_sec", "update_check_sec"},
}
OFFLINE = {"allowed", "max_amount", "max_total", "max_count", "max_age_sec"}


@pytest.fixture(scope="module")
def config(wire: Wire) -> Json:
    """A config, with the ids of the terminal that it was for."""
    till = climb(wire, "keyed")
    return {**till.config(), "for": {"terminal_id": till.terminal_id, "device_id": till.device_id}}


def test_a_config_has_exactly_the_documented_sections(config: Json) -> None:
    assert set(config) - {"for"} == set(CONFIG)


@pytest.mark.parametrize("section", CONFIG)
def test_a_section_of_a_config_has_exactly_the_documented_fields(config: Json, section: str) -> None:
    assert set(config[section]) == CONFIG[section]


def test_a_config_is_for_the_terminal_that_asked(config: Json) -> None:
    assert config["terminal"] == config["for"]


def test_a_config_has_the_documented_limits(config: Json) -> None:
    security = config["security"]
    assert isinstance(security["pin_required"], bool)
    assert isinstance(security["fallback_allowed"], bool)
    for name in ("contactless_limit", "cvm_limit"):
        assert re.fullmatch(r"\d+", security[name])
    assert set(security["offline"]) == OFFLINE
    assert isinstance(security["offline"]["allowed"], bool)


def test_a_configs_emv_values_are_hex(config: Json) -> None:
    emv = config["emv"]
    assert emv["aids"]
    for value in [*emv["aids"], emv["terminal_capabilities"], emv["additional_capabilities"], emv["terminal_type"]]:
        assert is_hex(value)
    assert [len(emv[name]) for name in ("terminal_capabilities", "additional_capabilities", "terminal_type")] == [
        6,
        10,
        2,
    ]


def test_a_configs_intervals_are_whole_seconds(config: Json) -> None:
    for value in config["intervals"].values():
        assert type(value) is int
        assert value > 0


@dataclass(frozen=True)
class Parameters:
    """Terminal parameters as they came, and what was in them."""

    envelope: Json
    plaintexts: list[bytes]
    joined: bytes

    @property
    def content(self) -> Json:
        content = json.loads(self.joined.decode("utf-8"))
        assert isinstance(content, dict)
        return content


@pytest.fixture(scope="module")
def parameters(wire: Wire) -> Parameters:
    till = climb(wire, "configured")
    envelope = till.attested("/pos/terminal-parameters").ok()
    msk = till.keys["msk"].value
    assert_kcv(envelope["key_kcv"], kcv_aes(msk))
    pieces = [
        cbc_decrypt(msk, bytes.fromhex(chunk["initialization_vector"]), bytes.fromhex(chunk["ciphertext"]))
        for chunk in envelope["chunks"]
    ]
    return Parameters(envelope, pieces, unseal(msk, envelope))


def test_parameters_come_chunked_and_gzipped(parameters: Parameters) -> None:
    assert set(parameters.envelope) == {"format", "content_encoding", "mode", "key_kcv", "chunks"}
    assert parameters.envelope["format"] == "TR31-DATA-CHUNKED"
    assert parameters.envelope["content_encoding"] == "gzip"
    assert parameters.envelope["mode"] == "CBC"
    assert len(parameters.envelope["chunks"]) > 1


def test_a_chunk_has_exactly_the_documented_fields(parameters: Parameters) -> None:
    for chunk in parameters.envelope["chunks"]:
        assert set(chunk) == {"ciphertext", "initialization_vector", "mode"}
        assert chunk["mode"] == "CBC"
        assert is_hex(chunk["ciphertext"])
        assert is_hex(chunk["initialization_vector"])


def test_every_chunk_has_an_iv_of_its_own(parameters: Parameters) -> None:
    chunks = parameters.envelope["chunks"]
    assert len({chunk["initialization_vector"] for chunk in chunks}) == len(chunks)


def test_a_chunk_holds_at_most_2047_bytes(parameters: Parameters) -> None:
    assert max(len(piece) for piece in parameters.plaintexts) <= 2047


def test_parameters_are_about_200_kb_of_json(parameters: Parameters) -> None:
    assert 150_000 < len(parameters.joined) < 250_000


def test_parameters_are_about_17_kb_gzipped(parameters: Parameters) -> None:
    assert 10_000 < sum(len(piece) for piece in parameters.plaintexts) < 25_000


def test_parameters_have_the_documented_sections(parameters: Parameters) -> None:
    content = parameters.content
    assert {"version", "acquirers", "aids", "capks", "contact", "contactless"} <= set(content)
    assert isinstance(content["acquirers"], list)
    assert isinstance(content["contact"], dict)
    assert {"visa", "mastercard"} <= set(content["contactless"])


def test_each_application_has_the_documented_fields(parameters: Parameters) -> None:
    assert parameters.content["aids"]
    for application in parameters.content["aids"]:
        assert set(application) == {
            "aid",
            "partial_selection",
            "application_version",
            "tac_default",
            "tac_denial",
            "tac_online",
            "floor_limit",
            "default_ddol",
            "default_tdol",
            "random_selection",
        }


def test_each_ca_key_has_the_documented_fields(parameters: Parameters) -> None:
    assert parameters.content["capks"]
    for key in parameters.content["capks"]:
        assert set(key) == {"rid", "index", "modulus", "exponent", "hash", "expiry"}


# --- charges -------------------------------------------------------------------------------------

CHARGE = {
    "id",
    "status",
    "amount",
    "reference",
    "authorization_code",
    "response_code",
    "emv",
    "message",
    "created_at",
    "gateway",
}
DECLINES = ["01", "05", "14", "41", "43", "51", "54", "55", "61", "65", "91"]


@pytest.mark.parametrize("value", ["1200", "1205", "1230", "1240"], ids=["approved", "declined", "part", "pending"])
def test_a_charge_answers_with_exactly_the_documented_fields(till: Terminal, value: str) -> None:
    answer = till.charge(till.charge_request(value))
    assert set(answer) == CHARGE
    assert set(answer["amount"]) == {"value", "currency"}
    assert set(answer["gateway"]) == {"network", "rrn"}


def test_an_approval_fits_the_question(till: Terminal) -> None:
    request = till.charge_request("1250")
    answer = till.charge(request)
    assert re.fullmatch(r"ch_[0-9A-Za-z]{12}", answer["id"])
    assert answer["status"] == "approved"
    assert answer["amount"] == {"value": "1250", "currency": "EUR"}
    assert answer["reference"] == request["reference"]
    assert answer["response_code"] == "00"
    assert re.fullmatch(r"[0-9A-Za-z]{6}", answer["authorization_code"])
    assert is_near(answer["created_at"])


@pytest.mark.parametrize("entry_mode", ["chip", "swipe", "contactless", "manual"])
def test_every_entry_mode_is_taken(wire: Wire, till: Terminal, entry_mode: str) -> None:
    answer = till.charge(till.charge_request("1200", entry_mode=entry_mode))
    assert answer["status"] == "approved"
    assert ledger_row(wire, answer["id"])["entry_mode"] == entry_mode


def test_a_charge_with_online_pin_is_taken(till: Terminal) -> None:
    request = till.charge_request("1200")
    tpk = till.keys["tpk"]
    request["pin"] = {"format": "ISO-4", "block": pin_block(tpk.value, "1234", PAN), "key_kcv": tpk.kcv}
    assert till.charge(request)["status"] == "approved"


def test_a_charge_with_a_tip_is_taken(till: Terminal) -> None:
    request = {**till.charge_request("1200"), "tip": {"value": "100", "currency": "EUR"}}
    assert till.charge(request)["status"] == "approved"


def test_a_fallback_to_the_stripe_is_taken(till: Terminal) -> None:
    request = {**till.charge_request("1200", entry_mode="swipe"), "fallback": True}
    assert till.charge(request)["status"] == "approved"


def test_a_charge_approved_offline_is_taken(till: Terminal) -> None:
    request = {**till.charge_request("1200"), "offline": {"approved_at": till.timestamp(timedelta(minutes=-3))}}
    assert till.charge(request)["status"] == "approved"


@pytest.mark.parametrize("scheme", ["dukpt-aes", "dukpt-tdes"])
def test_a_card_encrypted_by_its_reader_is_passed_through(till: Terminal, scheme: str) -> None:
    request = till.charge_request("1200", entry_mode="swipe")
    del request["card"]["track2"]
    size = {"dukpt-aes": 24, "dukpt-tdes": 20}[scheme]
    request["card"]["encrypted_card"] = {
        "scheme": scheme,
        "ksn": secrets.token_hex(size // 2).upper(),
        "data": secrets.token_hex(32).upper(),
    }
    assert till.charge(request)["status"] == "approved"


def test_track_data_may_leave_out_its_kcv(till: Terminal) -> None:
    request = till.charge_request("1200")
    del request["card"]["track2"]["key_kcv"]
    assert till.charge(request)["status"] == "approved"


def test_track_data_with_another_keys_kcv_is_400(till: Terminal) -> None:
    request = till.charge_request("1200")
    request["card"]["track2"]["key_kcv"] = kcv_aes(secrets.token_bytes(32))[:6]
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000")


# --- outcomes by amount --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["00", "20", "50", "77", "02", "06", "10", "31", "46", "60", "99"])
def test_an_ordinary_amount_is_approved(till: Terminal, ending: str) -> None:
    answer = till.charge(till.charge_request(f"21{ending}"))
    assert (answer["status"], answer["response_code"]) == ("approved", "00")
    assert answer["amount"] == {"value": f"21{ending}", "currency": "EUR"}


@pytest.mark.parametrize("ending", DECLINES)
@pytest.mark.parametrize("before", ["1", "21", "9876"])
def test_an_amount_that_declines_declines_with_its_code(till: Terminal, before: str, ending: str) -> None:
    answer = till.charge(till.charge_request(before + ending))
    assert (answer["status"], answer["response_code"]) == ("declined", ending)


def test_30_is_approved_in_part(till: Terminal) -> None:
    answer = till.charge(till.charge_request("1230"))
    assert (answer["status"], answer["response_code"]) == ("approved", "10")
    assert answer["amount"] == {"value": "615", "currency": "EUR"}


def test_40_is_pending_at_first(till: Terminal) -> None:
    answer = till.charge(till.charge_request("1240"))
    assert (answer["status"], answer["response_code"]) == ("pending", "09")


@pytest.mark.slow
def test_40_is_approved_within_seconds(till: Terminal) -> None:
    answer = till.charge(till.charge_request("1240"))
    deadline = time.monotonic() + 10.0
    while answer["status"] == "pending":
        assert time.monotonic() < deadline, "still pending"
        time.sleep(0.25)
        answer = till.lookup(answer["id"])
    assert (answer["status"], answer["response_code"]) == ("approved", "00")
    assert answer["amount"] == {"value": "1240", "currency": "EUR"}


def test_45_is_approved_and_its_refund_accepted(till: Terminal) -> None:
    answer = till.charge(till.charge_request("1245"))
    assert (answer["status"], answer["response_code"]) == ("approved", "00")
    till.refund(answer["id"], "1245")


@pytest.mark.slow
def test_08_is_approved_after_eight_seconds(till: Terminal) -> None:
    started = time.monotonic()
    answer = till.charge(till.charge_request("1208"))
    assert (answer["status"], answer["response_code"]) == ("approved", "00")
    assert 7.5 < time.monotonic() - started < 15


@pytest.mark.slow
def test_a_slow_charge_does_not_hold_up_the_others(wire: Wire, till: Terminal) -> None:
    body = till.seal(till.charge_request("1208"))
    slow = threading.Thread(target=till.send, args=("POST", "/pos/charge", body))
    slow.start()
    try:
        started = time.monotonic()
        approved(till)
        assert time.monotonic() - started < 5
        assert slow.is_alive()
    finally:
        slow.join()


# --- a charge that is refused --------------------------------------------------------------------


def charge_with_amount(till: Terminal, value: Any, currency: Any = "EUR") -> Answer:
    request = till.charge_request("1200")
    request["amount"] = {"value": value, "currency": currency}
    return till.send("POST", "/pos/charge", till.seal(request), secrets.token_hex(16))


def test_an_amount_of_zero_is_422(till: Terminal) -> None:
    assert_refused(charge_with_amount(till, "0"), "422 4220")


@pytest.mark.parametrize("currency", ["XQZ", "QQQ"])
def test_an_unknown_currency_is_422(till: Terminal, currency: str) -> None:
    assert_refused(charge_with_amount(till, "1200", currency), "422 4220")


@pytest.mark.parametrize("currency", ["", "EU", "EURO", "978", "€€€"])
def test_what_is_no_currency_is_refused(till: Terminal, currency: str) -> None:
    assert_refused(charge_with_amount(till, "1200", currency), "400 4000", "422 4220")


@pytest.mark.parametrize("value", [1250, 12.5, True, None, [], {}, "", "abc", "12.50", "1e3", "0x10"], ids=repr)
def test_a_malformed_amount_is_400(till: Terminal, value: Any) -> None:
    assert_refused(charge_with_amount(till, value), "400 4000")


@pytest.mark.parametrize(
    "value", ["00", "-1200", "9" * 40, "9" * 5000, "1_200", " 1200", "+1200", "١٢٠٠", "12\n00"], ids=ascii
)
def test_an_amount_of_another_kind_is_refused(till: Terminal, value: str) -> None:
    assert_refused(charge_with_amount(till, value), "400 4000", "422 4220")


def test_a_currency_that_is_no_string_is_400(till: Terminal) -> None:
    assert_refused(charge_with_amount(till, "1200", 978), "400 4000")


@pytest.mark.parametrize("path", ["amount", "amount.value", "amount.currency", "entry_mode", "reference"])
def test_a_charge_without_a_field_is_400(till: Terminal, path: str) -> None:
    request = till.charge_request("1200")
    *parents, last = path.split(".")
    inner = request
    for name in parents:
        inner = inner[name]
    del inner[last]
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "1250"),
        ("amount", []),
        ("entry_mode", 7),
        ("reference", 17),
        ("reference", None),
        ("card", "4761739001010119"),
        ("card", []),
        ("emv", "not hex"),
        ("emv", 17),
        ("fallback", "yes"),
    ],
)
def test_a_charge_with_a_malformed_field_is_400(till: Terminal, field: str, value: Any) -> None:
    request = {**till.charge_request("1200"), field: value}
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000")


@pytest.mark.parametrize("tag", ["56", "57", "5A", "5F20", "9F1F", "9F20", "9F6B"])
def test_track_data_in_disguise_is_refused(till: Terminal, tag: str) -> None:
    request = till.charge_request("1200")
    request["emv"] += f"{tag}084761739001010119"
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000", "422 4220")


@pytest.mark.parametrize("template", ["70", "77", "6F", "E1"])
def test_track_data_in_a_template_is_refused(till: Terminal, template: str) -> None:
    request = till.charge_request("1200")
    request["emv"] += f"{template}0A5A084761739001010119"
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000", "422 4220")


@pytest.mark.parametrize("entry_mode", ["swipe", "manual"])
def test_emv_objects_without_a_chip_are_refused(till: Terminal, entry_mode: str) -> None:
    request = {**till.charge_request("1200", entry_mode=entry_mode), "emv": till.charge_request("1200")["emv"]}
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000", "422 4220")


def test_an_unknown_entry_mode_is_refused(till: Terminal) -> None:
    request = {**till.charge_request("1200"), "entry_mode": "telepathy"}
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000", "422 4220")


def test_a_refused_charge_is_not_in_the_ledger(wire: Wire, till: Terminal) -> None:
    request = till.charge_request("0")
    assert till.send("POST", "/pos/charge", till.seal(request)).status == 422
    assert request["reference"] not in [row["reference"] for row in ledger(wire)]


# --- envelopes that do not open ------------------------------------------------------------------


def flip(text: str, byte: int, mask: int = 0x80) -> str:
    raw = bytearray.fromhex(text)
    raw[byte] ^= mask
    return raw.hex().upper()


def with_field(name: str, change: Callable[[str], str]) -> Callable[[Terminal, bytes], Json]:
    def spoil(till: Terminal, plaintext: bytes) -> Json:
        envelope = seal(till.keys["msk"].value, plaintext)
        return {**envelope, name: change(envelope[name])}

    return spoil


def swap_blocks(ciphertext: str) -> str:
    return ciphertext[32:64] + ciphertext[:32] + ciphertext[64:]


DOES_NOT_OPEN: dict[str, Callable[[Terminal, bytes], Json]] = {
    "another key": lambda till, plaintext: seal(secrets.token_bytes(32), plaintext),
    "TDK for MSK": lambda till, plaintext: seal(till.keys["tdk"].value, plaintext),
    "a bit of the padding": with_field("ciphertext", lambda text: flip(text, -17)),
    "a bit of the last block": with_field("ciphertext", lambda text: flip(text, -1)),
    "a bit of the first block": with_field("ciphertext", lambda text: flip(text, 3)),
    "a bit of the IV": with_field("initialization_vector", lambda text: flip(text, 0, 0x01)),
    "another IV": with_field("initialization_vector", lambda text: secrets.token_hex(16)),
    "blocks swapped": with_field("ciphertext", swap_blocks),
    "the last block gone": with_field("ciphertext", lambda text: text[:-32]),
    "the first block gone": with_field("ciphertext", lambda text: text[32:]),
    "a byte gone": with_field("ciphertext", lambda text: text[:-2]),
}


def opened_calls(till: Terminal, charge_id: str) -> dict[str, tuple[str, Json]]:
    return {
        "charge": ("/pos/charge", till.charge_request("1200")),
        "refund": (
            f"/pos/charge/{charge_id}/refund",
            {"amount": {"value": "100", "currency": "EUR"}, "reason": "returned"},
        ),
        "heartbeat": ("/pos/heartbeat", {"uptime_sec": 12, "pending": 0, "version": "1.0.0"}),
    }


@pytest.mark.parametrize("how", DOES_NOT_OPEN)
@pytest.mark.parametrize("name", ["charge", "refund", "heartbeat"])
def test_an_envelope_that_does_not_open_is_400(till: Terminal, a_charge: str, name: str, how: str) -> None:
    path, content = opened_calls(till, a_charge)[name]
    envelope = DOES_NOT_OPEN[how](till, json.dumps(content).encode())
    assert_refused(till.send("POST", path, json.dumps(envelope).encode()), "400 4000")


@pytest.mark.parametrize("how", DOES_NOT_OPEN)
def test_there_is_one_message_for_every_reason(till: Terminal, how: str) -> None:
    def refusal(reason: str) -> tuple[str, str, Json]:
        envelope = DOES_NOT_OPEN[reason](till, json.dumps(till.charge_request("1200")).encode())
        error = error_of(till.send("POST", "/pos/charge", json.dumps(envelope).encode()))
        return error["code"], error["message"], error["details"]

    assert refusal(how) == refusal("a bit of the padding")


@pytest.mark.parametrize("how", DOES_NOT_OPEN)
def test_activate_with_an_envelope_that_does_not_open_is_400(
    wire: Wire, keyed_to_activate: Terminal, how: str
) -> None:
    envelope = DOES_NOT_OPEN[how](keyed_to_activate, json.dumps(READY_FLAGS).encode())
    answer = keyed_to_activate.attested("/pos/activate", json.dumps(envelope).encode())
    assert_refused(answer, "400 4000")
    assert keyed_to_activate.status()["device_status"] == "claimed"


@pytest.fixture(scope="module")
def keyed_to_activate(wire: Wire) -> Terminal:
    """A terminal one step short of activated, which never gets there."""
    return climb(wire, "parameterised")


def envelope_but(**changes: Any) -> Callable[[Json], bytes]:
    return lambda envelope: json.dumps({**envelope, **changes}).encode()


def envelope_without(name: str) -> Callable[[Json], bytes]:
    return lambda envelope: json.dumps({key: value for key, value in envelope.items() if key != name}).encode()


NOT_AN_ENVELOPE: dict[str, Callable[[Json], bytes]] = {
    "nothing": lambda envelope: b"",
    "no JSON": lambda envelope: b"hello",
    "no UTF-8": lambda envelope: b"\xff\xfe\x00",
    "an empty object": lambda envelope: b"{}",
    "a list": lambda envelope: json.dumps([envelope]).encode(),
    "null": lambda envelope: b"null",
    "a deep nest": lambda envelope: b"[" * 100_000,
    "a charge in the clear": lambda envelope: b'{"amount": {"value": "1200", "currency": "EUR"}}',
    "cut short": lambda envelope: json.dumps(envelope).encode()[:-20],
    "no format": envelope_without("format"),
    "no ciphertext": envelope_without("ciphertext"),
    "no IV": envelope_without("initialization_vector"),
    "no mode": envelope_without("mode"),
    "another format": envelope_but(format="TR34-DATA"),
    "ECB": envelope_but(mode="ECB"),
    "a short IV": envelope_but(initialization_vector="00" * 15),
    "a long IV": envelope_but(initialization_vector="00" * 17),
    "an IV that is no hex": envelope_but(initialization_vector="Z" * 32),
    "a ciphertext that is no hex": envelope_but(ciphertext="Z" * 64),
    "a ciphertext of odd digits": envelope_but(ciphertext="0" * 63),
    "an empty ciphertext": envelope_but(ciphertext=""),
    "a ciphertext that is a number": envelope_but(ciphertext=17),
    "a ciphertext that is a list": envelope_but(ciphertext=["00" * 16]),
}


@pytest.mark.parametrize("how", NOT_AN_ENVELOPE)
@pytest.mark.parametrize("name", ["charge", "refund", "heartbeat"])
def test_a_body_that_is_no_envelope_is_400(till: Terminal, a_charge: str, name: str, how: str) -> None:
    path, content = opened_calls(till, a_charge)[name]
    body = NOT_AN_ENVELOPE[how](seal(till.keys["msk"].value, json.dumps(content).encode()))
    assert_refused(till.send("POST", path, body), "400 4000")


@pytest.mark.parametrize("how", NOT_AN_ENVELOPE)
def test_activate_with_a_body_that_is_no_envelope_is_400(keyed_to_activate: Terminal, how: str) -> None:
    body = NOT_AN_ENVELOPE[how](seal(keyed_to_activate.keys["msk"].value, json.dumps(READY_FLAGS).encode()))
    assert_refused(keyed_to_activate.attested("/pos/activate", body), "400 4000")


@pytest.mark.parametrize(
    "plaintext",
    [b"", b"[]", b"null", b"17", b'"x"', b"{", b"\xff\xfe", b"{}", b'{"a":' * 300 + b"1" + b"}" * 300],
    ids=lambda plaintext: repr(plaintext[:8]),
)
@pytest.mark.parametrize("name", ["charge", "refund"])
def test_an_envelope_around_something_else_is_400(
    till: Terminal, a_charge: str, name: str, plaintext: bytes
) -> None:
    path, _ = opened_calls(till, a_charge)[name]
    assert_refused(till.send("POST", path, till.seal(plaintext)), "400 4000")


def test_a_decompression_bomb_is_refused(wire: Wire, till: Terminal) -> None:
    bomb = gzip.compress(b'{"a":"' + bytes(30_000_000) + b'"}')
    envelope = {**seal(till.keys["msk"].value, bomb), "content_encoding": "gzip"}
    answer = till.send("POST", "/pos/charge", json.dumps(envelope).encode())
    assert 400 <= answer.status < 500
    error_of(answer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(min_size=1, max_size=300))
def test_any_bytes_for_an_envelope_are_400(till: Terminal, body: bytes) -> None:
    assert_refused(till.send("POST", "/pos/charge", body), "400 4000")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(
        st.sampled_from(["amount", "entry_mode", "reference"]),
        JSON_VALUES.filter(lambda v: type(v) is not str),
        min_size=1,
    )
)
def test_any_other_json_in_a_charge_is_refused(till: Terminal, changes: Json) -> None:
    request = {**till.charge_request("1200"), **changes}
    assert_refused(till.send("POST", "/pos/charge", till.seal(request)), "400 4000", "422 4220")


# --- lookup --------------------------------------------------------------------------------------


def test_a_lookup_by_id_gives_the_charge(till: Terminal) -> None:
    charge = approved(till)
    found = till.lookup(charge["id"])
    for name in ("id", "status", "amount", "reference", "authorization_code", "response_code", "created_at"):
        assert found[name] == charge[name]


def test_a_lookup_by_reference_gives_the_charges(till: Terminal) -> None:
    charge = approved(till)
    found = till.lookup_reference(charge["reference"])
    assert set(found) == {"charges"}
    assert [row["id"] for row in found["charges"]] == [charge["id"]]
    assert found["charges"][0]["status"] == "approved"


def test_a_lookup_by_reference_gives_every_charge_of_it(till: Terminal) -> None:
    request = till.charge_request("1200")
    declined = {**till.charge_request("1205"), "reference": request["reference"]}
    ids = {till.charge(declined)["id"], till.charge(request)["id"]}
    assert {row["id"] for row in till.lookup_reference(request["reference"])["charges"]} == ids


def test_a_reference_of_any_characters_is_found(till: Terminal) -> None:
    request = {**till.charge_request("1200"), "reference": f"Tisch 7/ä&x=1#{secrets.token_hex(4)}"}
    charge = till.charge(request)
    assert charge["reference"] == request["reference"]
    assert [row["id"] for row in till.lookup_reference(request["reference"])["charges"]] == [charge["id"]]


def test_a_lookup_without_a_reference_is_refused(till: Terminal) -> None:
    assert 400 <= till.send("GET", "/pos/charge").status < 500


CHARGE_CALLS = ["lookup", "refund", "cancel", "reverse"]


def call_on(till: Terminal, name: str, charge_id: str) -> Answer:
    call = signed_call(name, till, charge_id)
    return till.send(call.method, call.path, call.body)


@pytest.mark.parametrize("name", CHARGE_CALLS)
def test_an_unknown_charge_is_404(till: Terminal, name: str) -> None:
    assert_refused(call_on(till, name, unknown_charge()), "404 4040")


@pytest.mark.parametrize("name", CHARGE_CALLS)
def test_another_terminals_charge_is_404(till: Terminal, other: Terminal, name: str) -> None:
    charge_id = approved(till)["id"]
    assert_refused(call_on(other, name, charge_id), "404 4040")
    assert till.lookup(charge_id)["status"] == "approved"


def test_another_terminals_charge_is_not_found_by_reference(till: Terminal, other: Terminal) -> None:
    reference = approved(till)["reference"]
    answer = other.send("GET", f"/pos/charge?reference={reference}")
    if answer.status == 200:
        assert other.open(answer.json()) == {"charges": []}
    else:
        assert_refused(answer, "404 4040")


def test_another_terminals_refund_is_not_found(till: Terminal, other: Terminal) -> None:
    refund = till.refund(approved(till)["id"], "100")
    assert_refused(other.send("GET", f"/pos/refund/{refund['id']}"), "400 4000", "404 4040")


def test_an_unknown_refund_is_refused(till: Terminal) -> None:
    assert_refused(till.send("GET", f"/pos/refund/rf_{secrets.token_hex(6)}"), "400 4000", "404 4040")


# --- refunds -------------------------------------------------------------------------------------


def try_refund(till: Terminal, charge_id: str, value: Any, currency: Any = "EUR") -> Answer:
    request = {"amount": {"value": value, "currency": currency}, "reason": "returned"}
    return till.send("POST", f"/pos/charge/{charge_id}/refund", till.seal(request), secrets.token_hex(16))


def test_a_refund_answers_with_exactly_the_documented_fields(till: Terminal) -> None:
    charge = approved(till)
    refund = till.refund(charge["id"], "500")
    assert set(refund) == {"id", "charge_id", "status", "amount", "created_at"}
    assert re.fullmatch(r"rf_\w+", refund["id"])
    assert refund["charge_id"] == charge["id"]
    assert refund["status"] == "approved"
    assert refund["amount"] == {"value": "500", "currency": "EUR"}
    assert is_near(refund["created_at"])


def test_a_partial_refund_leaves_the_charge_partially_refunded(till: Terminal) -> None:
    charge = approved(till)
    till.refund(charge["id"], "500")
    assert till.lookup(charge["id"])["status"] == "partially_refunded"


def test_a_full_refund_leaves_the_charge_refunded(till: Terminal) -> None:
    charge = approved(till)
    till.refund(charge["id"], "1200")
    assert till.lookup(charge["id"])["status"] == "refunded"


def test_partial_refunds_may_add_up_to_the_whole(till: Terminal) -> None:
    charge = approved(till)
    for value in ("500", "699", "1"):
        till.refund(charge["id"], value)
    assert till.lookup(charge["id"])["status"] == "refunded"


def test_a_refund_above_the_charge_is_422(till: Terminal) -> None:
    assert_refused(try_refund(till, approved(till)["id"], "1201"), "422 4220")


def test_a_refund_above_what_is_left_is_422(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    till.refund(charge["id"], "700")
    assert_refused(try_refund(till, charge["id"], "501"), "422 4220")
    assert len(ledger_row(wire, charge["id"])["refunds"]) == 1
    till.refund(charge["id"], "500")


def test_a_refund_of_what_is_wholly_refunded_is_refused(till: Terminal) -> None:
    charge = approved(till)
    till.refund(charge["id"], "1200")
    assert_refused(try_refund(till, charge["id"], "1"), "409 4090", "422 4220")


def test_a_partial_approval_is_refunded_to_what_was_approved(till: Terminal) -> None:
    charge = approved(till, "1230")
    assert_refused(try_refund(till, charge["id"], "616"), "422 4220")
    till.refund(charge["id"], "615")


@pytest.mark.parametrize("value", ["1205", "1240"], ids=["declined", "pending"])
def test_a_refund_of_what_is_not_approved_is_409(till: Terminal, value: str) -> None:
    charge = till.charge(till.charge_request(value))
    assert_refused(try_refund(till, charge["id"], "100"), "409 4090")


def test_a_refund_of_what_is_canceled_is_409(till: Terminal) -> None:
    charge = approved(till)
    till.cancel(charge["id"])
    assert_refused(try_refund(till, charge["id"], "100"), "409 4090")


def test_a_refund_of_zero_is_422(till: Terminal, a_charge: str) -> None:
    assert_refused(try_refund(till, a_charge, "0"), "422 4220")


def test_a_refund_in_an_unknown_currency_is_422(till: Terminal, a_charge: str) -> None:
    assert_refused(try_refund(till, a_charge, "100", "XQZ"), "422 4220")


def test_a_refund_in_another_currency_is_refused(wire: Wire, till: Terminal, a_charge: str) -> None:
    answer = try_refund(till, a_charge, "100", "USD")
    assert_refused(answer, "400 4000", "409 4090", "422 4220")
    assert ledger_row(wire, a_charge)["refunds"] == []


@pytest.mark.parametrize("value", [100, True, None, "", "1.00", "abc", {}], ids=repr)
def test_a_refund_of_a_malformed_amount_is_400(till: Terminal, a_charge: str, value: Any) -> None:
    assert_refused(try_refund(till, a_charge, value), "400 4000")


@pytest.mark.parametrize("value", ["-100", "9" * 40])
def test_a_refund_of_an_amount_of_another_kind_is_refused(till: Terminal, a_charge: str, value: str) -> None:
    assert_refused(try_refund(till, a_charge, value), "400 4000", "422 4220")


def test_a_refund_without_an_amount_is_400(till: Terminal, a_charge: str) -> None:
    answer = till.send("POST", f"/pos/charge/{a_charge}/refund", till.seal({"reason": "returned"}))
    assert_refused(answer, "400 4000")


def test_a_refunds_status_can_be_asked(till: Terminal) -> None:
    refund = till.refund(approved(till)["id"], "500")
    found = till.refund_status(refund["id"])
    for name in ("id", "charge_id", "status", "amount"):
        assert found[name] == refund[name]


def test_refunds_that_race_never_exceed_the_charge(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=lambda: answers.put(try_refund(till, charge["id"], "700").status)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers.get_nowait() for _ in threads) == [200] + [422] * 5
    assert len(ledger_row(wire, charge["id"])["refunds"]) == 1


# --- cancels -------------------------------------------------------------------------------------

CANCEL_WORDS = ["cancel", "reverse"]


@pytest.mark.parametrize("word", CANCEL_WORDS)
def test_a_cancel_answers_with_exactly_the_documented_fields(till: Terminal, word: str) -> None:
    charge = approved(till)
    answer = till.cancel(charge["id"], word)
    assert set(answer) == {"id", "status", "canceled_at"}
    assert answer["id"] == charge["id"]
    assert answer["status"] == "canceled"
    assert is_near(answer["canceled_at"])


@pytest.mark.parametrize("word", CANCEL_WORDS)
def test_a_cancel_voids_the_charge(wire: Wire, till: Terminal, word: str) -> None:
    charge = approved(till)
    till.cancel(charge["id"], word)
    assert till.lookup(charge["id"])["status"] == "canceled"
    assert ledger_row(wire, charge["id"])["status"] == "canceled"


@pytest.mark.parametrize("first", CANCEL_WORDS)
@pytest.mark.parametrize("second", CANCEL_WORDS)
def test_a_second_cancel_gives_the_same_answer_again(till: Terminal, first: str, second: str) -> None:
    charge = approved(till)
    assert till.cancel(charge["id"], first) == till.cancel(charge["id"], second)


def test_a_cancel_ignores_a_content_type(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    headers = {**till.hmac_headers(), "Content-Type": "text/plain; charset=nonsense"}
    answer = wire.call("POST", f"/pos/charge/{charge['id']}/cancel", headers)
    assert till.open(answer.ok())["status"] == "canceled"


# --- idempotency ---------------------------------------------------------------------------------

ANOTHER_BODY = "Idempotency key reused with a different request body."
ANOTHER_ENDPOINT = "Idempotency key already used for a different endpoint."


@pytest.mark.parametrize("value", ["1200", "1205", "1230"], ids=["approved", "declined", "in part"])
def test_the_same_key_and_body_give_the_first_answer_again(wire: Wire, till: Terminal, value: str) -> None:
    body, key = till.seal(till.charge_request(value)), secrets.token_hex(16)
    first, second = (till.open(till.send("POST", "/pos/charge", body, key).ok()) for _ in range(2))
    assert first == second
    assert len([row for row in ledger(wire) if row["reference"] == first["reference"]]) == 1


def test_the_first_answer_is_given_again_though_the_charge_has_changed(till: Terminal) -> None:
    body, key = till.seal(till.charge_request("1200")), secrets.token_hex(16)
    first = till.open(till.send("POST", "/pos/charge", body, key).ok())
    till.cancel(first["id"])
    assert till.open(till.send("POST", "/pos/charge", body, key).ok()) == first


def test_the_same_key_with_another_body_is_409(wire: Wire, till: Terminal) -> None:
    key = secrets.token_hex(16)
    till.charge(till.charge_request("1200"), key)
    request = till.charge_request("1300")
    answer = till.send("POST", "/pos/charge", till.seal(request), key)
    assert assert_refused(answer, "409 4090")["message"] == ANOTHER_BODY
    assert request["reference"] not in [row["reference"] for row in ledger(wire)]


def test_the_same_content_sealed_again_is_another_body(till: Terminal) -> None:
    request, key = till.charge_request("1200"), secrets.token_hex(16)
    till.charge(request, key)
    answer = till.send("POST", "/pos/charge", till.seal(request), key)
    assert assert_refused(answer, "409 4090")["message"] == ANOTHER_BODY


def test_another_body_is_409_before_anything_is_opened(till: Terminal) -> None:
    key = secrets.token_hex(16)
    till.charge(till.charge_request("1200"), key)
    answer = till.send("POST", "/pos/charge", b'{"not": "an envelope"}', key)
    assert assert_refused(answer, "409 4090")["message"] == ANOTHER_BODY


def test_the_same_key_on_another_endpoint_is_409(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    body, key = till.seal(till.charge_request("1200")), secrets.token_hex(16)
    till.send("POST", "/pos/charge", body, key).ok()
    answer = till.send("POST", f"/pos/charge/{charge['id']}/refund", body, key)
    assert assert_refused(answer, "409 4090")["message"] == ANOTHER_ENDPOINT
    assert ledger_row(wire, charge["id"])["refunds"] == []


def test_a_refunds_key_on_the_charge_endpoint_is_409(till: Terminal) -> None:
    charge = approved(till)
    body = till.seal({"amount": {"value": "100", "currency": "EUR"}, "reason": "x"})
    key = secrets.token_hex(16)
    till.send("POST", f"/pos/charge/{charge['id']}/refund", body, key).ok()
    answer = till.send("POST", "/pos/charge", body, key)
    assert assert_refused(answer, "409 4090")["message"] == ANOTHER_ENDPOINT


def test_the_same_refund_twice_is_one_refund(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    path = f"/pos/charge/{charge['id']}/refund"
    body = till.seal({"amount": {"value": "700", "currency": "EUR"}, "reason": "x"})
    key = secrets.token_hex(16)
    first, second = (till.open(till.send("POST", path, body, key).ok()) for _ in range(2))
    assert first == second
    assert len(ledger_row(wire, charge["id"])["refunds"]) == 1


def test_the_same_refund_key_with_another_body_is_409(till: Terminal) -> None:
    charge = approved(till)
    path = f"/pos/charge/{charge['id']}/refund"
    bodies = [till.seal({"amount": {"value": value, "currency": "EUR"}, "reason": "x"}) for value in ("100", "200")]
    key = secrets.token_hex(16)
    till.send("POST", path, bodies[0], key).ok()
    assert assert_refused(till.send("POST", path, bodies[1], key), "409 4090")["message"] == ANOTHER_BODY


def test_a_known_key_does_not_spare_the_signature(wire: Wire, till: Terminal) -> None:
    body, key = till.seal(till.charge_request("1200")), secrets.token_hex(16)
    till.send("POST", "/pos/charge", body, key).ok()
    headers = till.hmac_headers(body, idempotency_key=key)
    headers["X-Signature"] = sign(secrets.token_bytes(32), body)
    assert_refused(wire.call("POST", "/pos/charge", headers, body), "401 4010")


def test_charges_that_race_under_one_key_are_one_charge(wire: Wire, till: Terminal) -> None:
    request, key = till.charge_request("1200"), secrets.token_hex(16)
    body = till.seal(request)
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=lambda: answers.put(till.send("POST", "/pos/charge", body, key))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *rest = (till.open(answers.get_nowait().ok()) for _ in threads)
    assert rest == [first] * 5
    assert len([row for row in ledger(wire) if row["reference"] == request["reference"]]) == 1


# --- heartbeat -----------------------------------------------------------------------------------


def test_a_heartbeat_tells_the_time_and_what_to_do(till: Terminal) -> None:
    answer = till.heartbeat()
    assert set(answer) == {"server_time", "actions"}
    assert is_near(answer["server_time"])
    assert set(answer["actions"]) <= {"rotate_keys", "refresh_config", "refresh_parameters", "update"}


# --- the simulator's own interface ---------------------------------------------------------------


def test_the_ledger_has_exactly_the_documented_fields(wire: Wire, till: Terminal) -> None:
    request, key = till.charge_request("1200"), secrets.token_hex(16)
    charge = till.charge(request, key)
    whole = wire.call("GET", "/sim/ledger").ok()
    assert set(whole) == {"charges"}
    row = ledger_row(wire, charge["id"])
    assert set(row) == {
        "id",
        "terminal_id",
        "idempotency_key",
        "reference",
        "amount",
        "status",
        "refunds",
        "entry_mode",
        "created_at",
    }
    assert row["terminal_id"] == till.terminal_id
    assert row["idempotency_key"] == key
    assert row["reference"] == request["reference"]
    assert row["amount"] == charge["amount"]
    assert row["status"] == "approved"
    assert row["refunds"] == []
    assert row["entry_mode"] == "chip"
    assert moment(row["created_at"]) == moment(charge["created_at"])


def test_the_ledger_shows_what_became_of_a_charge(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    till.refund(charge["id"], "500")
    row = ledger_row(wire, charge["id"])
    assert row["status"] == "partially_refunded"
    assert len(row["refunds"]) == 1


def test_the_ledger_holds_declines_too(wire: Wire, till: Terminal) -> None:
    charge = till.charge(till.charge_request("1205"))
    assert ledger_row(wire, charge["id"])["status"] == "declined"


def test_faults_can_be_read_and_cleared(wire: Wire, till: Terminal) -> None:
    assert 200 <= wire.call("DELETE", "/sim/faults").status < 300
    wire.call("GET", "/sim/faults").ok()
    approved(till)


def test_faults_take_a_post(wire: Wire) -> None:
    """The shape of a rule is not in the reference: what is none may be refused, but the call is there."""
    try:
        answer = wire.post("/sim/faults", {})
        assert answer.status not in (404, 405)
        assert answer.status < 500
        if answer.status >= 400:
            error_of(answer)
    finally:
        wire.call("DELETE", "/sim/faults")


def exchanges(wire: Wire, till: Terminal) -> list[Json]:
    answer = wire.call("GET", f"/sim/exchanges?device_id={till.device_id}").ok()
    assert set(answer) == {"exchanges"}
    assert isinstance(answer["exchanges"], list)
    return answer["exchanges"]


def test_exchanges_have_exactly_the_documented_fields(wire: Wire, till: Terminal) -> None:
    approved(till)
    for exchange in exchanges(wire, till):
        assert set(exchange) == {
            "n",
            "at",
            "method",
            "path",
            "device_id",
            "terminal_id",
            "status",
            "request",
            "response",
        }


def test_exchanges_show_the_climb_in_order(wire: Wire) -> None:
    till = climb(wire, "activated")
    own = [row for row in exchanges(wire, till) if row["device_id"] == till.device_id]
    paths = [row["path"] for row in own]
    wanted = ["/pos/bootstrap", "/pos/pairing-code", "/pos/attest", "/pos/keys", "/pos/config"]
    wanted += ["/pos/terminal-parameters", "/pos/activate"]
    assert [path for path in paths if path in wanted] == wanted
    assert {row["status"] for row in own} == {200}
    assert [row["n"] for row in own] == sorted({row["n"] for row in own})


def test_exchanges_are_of_the_device_asked_for(wire: Wire, till: Terminal, other: Terminal) -> None:
    charge = approved(other)
    assert charge["id"] not in json.dumps(exchanges(wire, till))
    assert {row["device_id"] for row in exchanges(wire, till)} <= {till.device_id, None}


def test_exchanges_show_envelopes_opened(wire: Wire, till: Terminal) -> None:
    charge = approved(till)
    last = [row for row in exchanges(wire, till) if row["path"] == "/pos/charge"][-1]
    assert charge["reference"] in json.dumps(last["request"])
    assert charge["id"] in json.dumps(last["response"])
    assert last["status"] == 200


def test_exchanges_show_refusals(wire: Wire) -> None:
    till = climb(wire, "pairing")
    wire.call("POST", "/pos/attest", till.attest_headers())
    last = exchanges(wire, till)[-1]
    assert (last["method"], last["path"], last["status"]) == ("POST", "/pos/attest", 409)


@pytest.mark.parametrize("entry_mode", ["chip", "manual"])
def test_there_is_nothing_secret_in_the_exchanges(wire: Wire, entry_mode: str) -> None:
    till = climb(wire, "activated")
    request = till.charge_request("1200", entry_mode=entry_mode)
    tpk = till.keys["tpk"]
    request["pin"] = {"format": "ISO-4", "block": pin_block(tpk.value, "1234", PAN), "key_kcv": tpk.kcv}
    till.charge(request)
    written = wire.call("GET", f"/sim/exchanges?device_id={till.device_id}").body.decode()
    merchant = till.document["merchant"]
    for secret in (PAN, PAN.encode().hex(), merchant["client_secret"], till.token):
        assert secret.lower() not in written.lower()
    keys = [key.value for key in till.keys.keys.values()]
    for key in (*keys, bytes.fromhex(till.document["zmk"]["key"]), till.identity_secret):
        assert key.hex() not in written.lower()
        assert b64encode(key).decode().rstrip("=") not in written


# --- a host that is treated badly ----------------------------------------------------------------


def test_a_body_of_many_megabytes_does_no_harm(wire: Wire, till: Terminal) -> None:
    body = b'{"format":"TR31-DATA","ciphertext":"' + b"00" * 10_000_000 + b'"}'
    try:
        answer = till.send("POST", "/pos/charge", body)
    except OSError:
        pass  # it may well hang up on us
    else:
        assert 400 <= answer.status < 500
        error_of(answer)
    approved(till)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"POST /pos/charge HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /pos/charge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=["cut", "TLS", "no HTTP", "bad chunks"],
)
def test_rubbish_on_the_wire_does_no_harm(wire: Wire, rubbish: bytes) -> None:
    with socket.create_connection((wire.host, wire.port), timeout=10) as connection:
        connection.sendall(rubbish)
    wire.call("GET", "/health/live").ok()


@pytest.mark.parametrize("name", ["X-Nonce", "X-Key-Id", "X-Terminal-Id", "X-Signature", "Idempotency-Key"])
@pytest.mark.parametrize(
    "value", ["\xe9\xe8" * 10, "a" * 4000, "'; DROP TABLE charges; --"], ids=["latin", "long", "sql"]
)
def test_strange_headers_are_no_servers_error(wire: Wire, till: Terminal, name: str, value: str) -> None:
    body = till.seal(till.charge_request("1200"))
    headers = {**till.hmac_headers(body), name: value}
    answer = wire.call("POST", "/pos/charge", headers, body)
    assert answer.status < 500
    if answer.status >= 400:
        error_of(answer)


@pytest.mark.parametrize("charge_id", ["x", "ch_", "ch_%00", "ch_%2e%2e%2f", "ch_" + "a" * 2000, "%F0%9F%92%B3"])
def test_a_strange_charge_id_is_refused(till: Terminal, charge_id: str) -> None:
    answer = till.send("GET", f"/pos/charge/{charge_id}")
    assert_refused(answer, "400 4000", "404 4040")


# --- what takes time: a host whose clock can be moved --------------------------------------------

MOVABLE_CLOCK = """
import datetime, pathlib, runpy, sys, time

moved_by, sys.argv = pathlib.Path(sys.argv[1]), ["till", *sys.argv[2:]]
real = datetime.datetime


def offset():
    return float(moved_by.read_text())


class Meta(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)


class Moved(real, metaclass=Meta):
    def __new__(cls, *args, **kwargs):
        return real(*args, **kwargs)

    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=offset())

    @classmethod
    def utcnow(cls):
        return real.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(seconds=offset())


datetime.datetime = Moved
for name, unit in (("time", 1), ("monotonic", 1), ("time_ns", 10**9), ("monotonic_ns", 10**9)):
    clock = getattr(time, name)
    setattr(time, name, lambda clock=clock, unit=unit: clock() + type(clock())(offset() * unit))
runpy.run_module("terminal.cli.entry", run_name="__main__")
"""


@dataclass
class TimeMachine:
    """A host, and the file that says how far its clock is ahead of the world's."""

    wire: Wire
    moved_by: Path
    seconds: float = 0.0

    def advance(self, **how: float) -> None:
        """Let time pass, for the host alone."""
        self.seconds += timedelta(**how).total_seconds()
        write_whole(self.moved_by, str(self.seconds))


def write_whole(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimeMachine]:
    home = tmp_path_factory.mktemp("moved-host")
    moved_by = home / "moved-by"
    write_whole(moved_by, "0")
    arguments = ["-c", MOVABLE_CLOCK, str(moved_by), *HOST[2:], "--data", str(home / "data")]
    with host_process(arguments, home) as wire:
        yield TimeMachine(wire, moved_by)


def later(till: Terminal) -> Terminal:
    """The terminal, having looked at the host's clock again."""
    till.bootstrap()
    return till


def test_an_attestation_token_lasts_five_minutes_and_no_longer(machine: TimeMachine) -> None:
    till = climb(machine.wire, "attested")
    machine.advance(minutes=4, seconds=40)
    till.take_keys()
    machine.advance(seconds=40)
    assert_refused(till.attested("/pos/config"), "401 4010")


def test_a_new_attestation_goes_on_where_the_old_one_ended(machine: TimeMachine) -> None:
    till = climb(machine.wire, "keyed")
    machine.advance(minutes=6)
    later(till).attest()
    till.config()


def test_a_client_session_lasts_five_minutes_and_no_longer(machine: TimeMachine) -> None:
    office = back_office(climb(machine.wire, "bootstrapped"))
    machine.advance(minutes=4, seconds=40)
    office.initiate()
    machine.advance(seconds=40)
    assert_refused(office.claim("K7M3NP"), "401 4010")


def test_a_pairing_code_expires_after_five_minutes(machine: TimeMachine) -> None:
    till = climb(machine.wire, "pairing")
    machine.advance(minutes=4, seconds=40)
    assert till.status()["pairing_code_status"] == "pending"
    machine.advance(seconds=40)
    assert till.status() == {**STATUSES["pairing"], "pairing_code_status": "expired"}


def test_an_expired_pairing_code_claims_nothing(machine: TimeMachine) -> None:
    till = climb(machine.wire, "bootstrapped")
    code = till.pairing_code()["pairing_code"]
    machine.advance(minutes=6)
    assert_refused(back_office(till).claim(code), "404 4040", "409 4090")
    assert till.status()["is_claimed"] is False


def test_a_new_code_takes_the_place_of_an_expired_one(machine: TimeMachine) -> None:
    till = climb(machine.wire, "pairing")
    machine.advance(minutes=6)
    code = till.pairing_code()["pairing_code"]
    assert till.status()["pairing_code_status"] == "pending"
    back_office(till).claim(code).ok()


def test_a_recorded_request_is_401_once_its_window_is_over(machine: TimeMachine) -> None:
    till = later(climb(machine.wire, "activated"))
    body = till.seal(till.charge_request("1200"))
    headers = till.hmac_headers(body)
    machine.wire.call("POST", "/pos/charge", headers, body).ok()
    machine.advance(minutes=6)
    assert_refused(machine.wire.call("POST", "/pos/charge", headers, body), "401 4010")


def test_idempotency_keys_are_known_for_a_day(machine: TimeMachine) -> None:
    till = later(climb(machine.wire, "activated"))
    key = secrets.token_hex(16)
    till.charge(till.charge_request("1200"), key)
    machine.advance(hours=23)
    answer = later(till).send("POST", "/pos/charge", till.seal(till.charge_request("1300")), key)
    if answer.status == 401:
        pytest.skip("keys live for less than a day here, and the reference does not forbid it")
    assert assert_refused(answer, "409 4090")["message"] == ANOTHER_BODY


def test_idempotency_keys_are_forgotten_after_a_day(machine: TimeMachine) -> None:
    till = later(climb(machine.wire, "activated"))
    key = secrets.token_hex(16)
    till.charge(till.charge_request("1200"), key)
    machine.advance(hours=25)
    later(till).attest()
    till.take_keys()
    request = till.charge_request("1300")
    assert till.charge(request, key)["reference"] == request["reference"]


def test_a_refund_of_45_fails_a_minute_later(machine: TimeMachine) -> None:
    till = later(climb(machine.wire, "activated"))
    refund = till.refund(approved(till, "1245")["id"], "1245")
    assert refund["status"] == "approved"
    machine.advance(seconds=75)
    assert later(till).refund_status(refund["id"])["status"] != "approved"


def test_a_refund_of_another_amount_does_not_fail_later(machine: TimeMachine) -> None:
    till = later(climb(machine.wire, "activated"))
    refund = till.refund(approved(till, "1244")["id"], "1244")
    machine.advance(seconds=75)
    assert later(till).refund_status(refund["id"])["status"] == "approved"


def test_a_superseded_key_set_is_401_4011_once_it_has_expired(machine: TimeMachine) -> None:
    till = later(climb(machine.wire, "activated"))
    charge = approved(till)
    ends = moment(till.keys.expires_at) - datetime.now(UTC) - till.ahead
    machine.advance(seconds=ends.total_seconds() / 2)
    later(till).attest()
    till.take_keys()
    machine.advance(seconds=ends.total_seconds() / 2 + 60)
    later(till)
    headers = till.hmac_headers(keys=till.key_sets[0])
    assert_refused(machine.wire.call("GET", f"/pos/charge/{charge['id']}", headers), "401 4011")
    assert till.lookup(charge["id"])["status"] == "approved"
