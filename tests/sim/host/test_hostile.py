"""Bytes that a stranger chose: only the error body comes back."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sim.host.call_names import CALLS
from sim.host.config import HostConfig
from sim.host.requests import tlv_tags
from tests.sim.host.support import Bench, Device


@cache
def ready() -> Device:
    return Bench().device()


@given(st.binary(max_size=400))
def test_any_bytes_in_place_of_an_envelope(body: bytes) -> None:
    device = ready()
    for path in ("/pos/charge", "/pos/charge/ch_1/refund", "/pos/heartbeat"):
        assert device.post(path, body).error == (400, "4000")
    assert device.bench.ask("POST", "/pos/activate", device.attestation(), body).error in [
        (400, "4000"),
        (401, "4010"),
    ]


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_envelope_with_one_byte_changed(place: int, change: int) -> None:
    device = ready()
    body = bytearray(device.seal(device.order()))
    body[place % len(body)] ^= change
    reply = device.post("/pos/charge", bytes(body))
    # A changed IV or a changed block may still open: then it is other JSON, or an order that breaks a rule.
    assert reply.status in (200, 400, 422)
    if reply.status != 200:
        assert reply.error[1] in ("4000", "4220")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    json_values, st.sampled_from(["amount", "card", "emv", "pin", "tip", "offline", "entry_mode", "reference", ""])
)
def test_any_json_inside_an_envelope(value: Any, field: str) -> None:
    device = ready()
    document = {**device.order(), field: value} if field else value
    for path in ("/pos/charge", "/pos/charge/ch_1/refund", "/pos/heartbeat"):
        reply = device.post(path, device.seal(document))
        assert reply.status in (200, 400, 404, 422)


@given(json_values | st.binary(max_size=100))
def test_any_json_in_the_clear(value: Any) -> None:
    bench = ready().bench
    for path in ("/client/session", "/auth/token", "/sim/devices/POS-00000000", "/sim/settle"):
        assert bench.ask("POST", path, None, value if value != b"" else b"x").status in (200, 400, 401, 404)


header_text = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=60)


@given(
    st.sampled_from(sorted(CALLS)),
    st.dictionaries(
        st.sampled_from(
            [
                "authorization", "x-device-id", "x-terminal-id", "user-agent", "x-client-type", "x-key-id",
                "x-timestamp", "x-nonce", "x-signature", "idempotency-key",
            ]
        ),
        header_text,
    ),
)  # fmt: skip
def test_any_headers(call: str, changed: dict[str, str]) -> None:
    device = ready()
    method, path = CALLS[call]
    good = {**device.signed(), **device.attestation(), "X-Device-Id": device.id}
    headers = {name.lower(): value for name, value in good.items()} | changed
    reply = device.bench.ask(method, path.replace("{id}", "ch_1"), headers, b"")
    assert reply.status < 500


def test_a_body_or_a_header_that_is_too_large() -> None:
    bench = Bench(config=HostConfig(max_body=1000, max_header=300))
    assert bench.ask("POST", "/client/session", None, b"x" * 1001).error == (400, "4000")
    device = bench.device(activated=False)
    headers = {**device.activation(), "User-Agent": f"Viopay-POS/1.2.3 (Linux; {'x' * 300})"}
    assert bench.ask("POST", "/pos/bootstrap", headers).error == (400, "4000")


def test_a_body_in_pieces() -> None:
    bench = Bench(config=HostConfig(max_body=1000))

    def asked(pieces: list[bytes]) -> int:
        incoming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        incoming.append({"type": "http.request", "body": b"", "more_body": False})
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/client/session", "raw_path": b"", "query_string": b"",
            "root_path": "", "headers": [], "client": None,
        }  # fmt: skip

        async def run() -> None:
            await bench.app(scope, receive, send)

        bench.run(run)
        return int(sent[0]["status"]) if sent else 0

    login = json.dumps({"client_id": "a", "client_secret": "b", "grant_type": "client_credentials"}).encode()
    assert asked([login[:10], login[10:]]) == 401
    assert asked([b"x" * 600, b"x" * 600]) == 400


def test_a_client_that_goes_away_in_the_middle() -> None:
    bench = Bench()
    incoming = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {
        "type": "http", "method": "POST", "path": "/client/session", "raw_path": b"", "query_string": b"",
        "root_path": "", "headers": [], "client": None,
    }  # fmt: skip

    async def run() -> None:
        await bench.app(scope, receive, send)

    bench.run(run)
    assert bench.app.host.exchanges.count == 0


@given(st.binary(max_size=80))
def test_any_bytes_as_emv_data(data: bytes) -> None:
    try:
        tags = list(tlv_tags(data))
    except ValueError:
        return
    assert len(tags) <= len(data)
