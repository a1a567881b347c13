"""The whole protocol, call by call, against a host that writes down what it sees."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import traceback
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from terminal.clock import HostClock
from terminal.crypto import envelope
from terminal.errors import (
    EnvelopeError,
    HostAnswerInvalid,
    HostRefused,
    HostSilent,
    PaymentRefused,
    SettingsError,
    TillError,
)
from terminal.hosts.auth import user_agent
from terminal.hosts.http import HostSession
from terminal.hosts.viopay import CALLS, Level, MerchantClient, ViopayClient
from terminal.money import Amount
from terminal.settings import HostSettings
from tests.terminal.hosts.samples import CANCEL, CHARGE, KEY_SET, REFUND
from tests.terminal.hosts.scripted import Cut, Request, ScriptedHost, error, reply, run

MSK = bytes(range(32))
MAC = bytes(range(32, 64))
IDENTITY = bytes(range(64, 96))
TOKEN = "att_canary.9c3b7a51-token"
SECRET = "client-secret-canary-4f"
BEGAN = datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC)


class Keys:
    """As much of a keystore as a client uses, with keys that are in no vault."""

    device_id, terminal_id, identity_key_id = "POS-8F3A2C91", "TID-004812", "idk-1"

    def __init__(self) -> None:
        self.used: list[str | None] = []

    def mac_key_id(self, key_set_id: str | None = None) -> str:
        self.used.append(key_set_id)
        return f"mac-of-{key_set_id}"

    def sign_attestation(self, message: bytes) -> bytes:
        return hmac.digest(IDENTITY, message, "sha256")

    def sign_request(self, message: bytes, key_set_id: str | None = None) -> bytes:
        return hmac.digest(MAC, message, "sha256")

    def seal(self, plaintext: bytes, key_set_id: str | None = None) -> bytes:
        return envelope.encode(envelope.seal(MSK, plaintext, bytes))

    def open(self, body: bytes, *, limit: int, key_set_id: str | None = None) -> bytes:
        self.used.append(key_set_id)
        return envelope.open_envelope(MSK, body, limit=limit)


def sealed(answer: object, key: bytes = MSK) -> bytes:
    return reply(envelope.encode(envelope.seal(key, json.dumps(answer).encode(), bytes)))


BODY = envelope.encode(envelope.seal(MSK, b"{}", bytes))

# name of the call, what is called, what the host answers: in the order of CALLS
WALK = (
    ("health", lambda c, m: c.health(), reply({"status": "ok", "service": "vi-backoffice-api"})),
    (
        "client/session",
        lambda c, m: m.client_session("mrc_1", SECRET),
        reply({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 300}),
    ),
    (
        "auth/token",
        lambda c, m: m.client_session("mrc_1", SECRET, alias=True),
        reply({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 300}),
    ),
    (
        "session/initiate",
        lambda c, m: m.session_initiate(),
        reply({"status": "ok", "merchant": {}, "channel": "pos"}),
    ),
    ("pos/claim", lambda c, m: m.claim("K7M3NP"), reply({"status": "claimed", "device_id": "POS-8F3A2C91"})),
    (
        "pos/bootstrap",
        lambda c, m: c.bootstrap(),
        reply({"status": "ok", "server_time": "2025-12-13T14:25:30Z", "min_supported_version": "0.1.0"}),
    ),
    ("pos/pairing-code", lambda c, m: c.pairing_code(), reply({"pairing_code": "K7M3NP", "expires_in_sec": 300})),
    (
        "pos/status",
        lambda c, m: c.status(),
        reply({"device_status": "claimed", "is_claimed": True, "pairing_code_status": "used"}),
    ),
    (
        "pos/attest",
        lambda c, m: c.attest(),
        reply({"status": "attested", "attestation_token": TOKEN, "expires_in_sec": 300}),
    ),
    ("pos/keys", lambda c, m: c.keys(TOKEN), reply(KEY_SET)),
    ("pos/config", lambda c, m: c.config(TOKEN), reply(BODY)),
    ("pos/terminal-parameters", lambda c, m: c.parameters(TOKEN, progress=lambda now, of: None), reply(BODY)),
    (
        "pos/activate",
        lambda c, m: c.activate(TOKEN, emv_ready=True, keys_installed=True, network_ok=True),
        sealed({"status": "activated", "activated_at": "2025-12-13T14:25:30Z"}),
    ),
    ("pos/charge", lambda c, m: c.charge(BODY, "idem-1", "ks-1"), sealed(CHARGE)),
    ("pos/refund", lambda c, m: c.refund("ch_abc123def456", BODY, "idem-2", "ks-1"), sealed(REFUND)),
    ("pos/cancel", lambda c, m: c.cancel("ch_abc123def456"), sealed(CANCEL)),
    ("pos/reverse", lambda c, m: c.reverse("ch_abc123def456"), sealed(CANCEL)),
    ("pos/charge-by-id", lambda c, m: c.charge_by_id("ch_abc123def456"), sealed(CHARGE)),
    ("pos/charges", lambda c, m: c.charges_by_reference("order-17"), sealed({"charges": [CHARGE]})),
    ("pos/refund-status", lambda c, m: c.refund_status("rf_1"), sealed(REFUND)),
    (
        "pos/heartbeat",
        lambda c, m: c.heartbeat(uptime_sec=60, pending=0, version="0.1.0"),
        sealed({"server_time": "2025-12-13T14:25:30Z", "actions": ["update", "dance"]}),
    ),
)

SIGNED = {"x-key-id", "x-timestamp", "x-nonce", "x-signature"}
CLIENT = {"user-agent", "x-client-type"}
HEADERS = {
    Level.NONE: set(),
    Level.BEARER: {"authorization"},
    Level.ACTIVATION: {"x-device-id", *CLIENT},
    Level.ATTEST: {"x-device-id", *CLIENT, *SIGNED},
    Level.ATTESTATION: {"authorization", "x-device-id"},
    Level.TERMINAL: {"x-terminal-id", *CLIENT, *SIGNED},
}


def ticking() -> HostClock:
    """A clock that moves on a second each time that it is read."""
    seconds = count()
    return HostClock(lambda: BEGAN + timedelta(seconds=next(seconds)))


def counting():
    """Randomness that never repeats itself."""
    drawn = count(1)
    return lambda n: next(drawn).to_bytes(n, "big")


async def walk(calls, script, keys: Keys | None = None, **settings: object):
    """Make the calls against the script; give back what they gave, and the host."""
    async with ScriptedHost(list(script)) as host:
        told = HostSettings(url=host.url, client_version="0.1.0", **settings)  # type: ignore[arg-type]
        random = counting()
        async with HostSession(told, random=random) as session:
            client = ViopayClient(session, keys or Keys(), ticking(), random, told)  # type: ignore[arg-type]
            merchant = MerchantClient(session)
            came = [await call(client, merchant) for call in calls]
    return came, host


def one(call, answer, **settings: object):
    """One call, one answer."""
    (came,), host = asyncio.run(walk([call], [answer], attempts=1, **settings))
    return came, host.requests[0]


@pytest.fixture(scope="module")
def walked() -> tuple[dict[str, object], dict[str, Request]]:
    names = [name for name, _, _ in WALK]
    came, host = asyncio.run(walk([call for _, call, _ in WALK], [answer for _, _, answer in WALK]))
    return dict(zip(names, came, strict=True)), dict(zip(names, host.requests, strict=True))


def test_the_walk_is_the_whole_table():
    assert [name for name, _, _ in WALK] == list(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_each_call_goes_where_the_table_says_with_the_headers_of_its_level(walked, name):
    request, call = walked[1][name], CALLS[name]
    path = call.path.replace("{reference}", "order-17")
    path = path.replace("{id}", "rf_1" if name == "pos/refund-status" else "ch_abc123def456")
    assert (request.method, request.target) == (call.method, path)
    plain = {"host", "accept", "accept-encoding", "content-length", "content-type", "idempotency-key"}
    assert set(request.names) - plain == HEADERS[Level(call.level)]
    assert len(request.names) == len(set(request.names))
    assert ("content-type" in request.names) == bool(request.body)
    assert ("idempotency-key" in request.names) == (name in ("pos/charge", "pos/refund"))


def test_what_came_back_is_typed(walked):
    came, _ = walked
    assert came["health"] == "vi-backoffice-api"
    assert came["pos/bootstrap"].server_time == BEGAN
    assert came["pos/pairing-code"].pairing_code == "K7M3NP"
    assert came["pos/status"].is_claimed
    assert came["pos/keys"].key_set_id == "ks-1"
    assert {key.key_block for key in came["pos/keys"].keys.values()} == {"D0016"}
    assert came["pos/config"] == came["pos/terminal-parameters"] == BODY
    assert came["pos/activate"].activated_at == BEGAN
    assert came["pos/charge"].amount == Amount(1250, "EUR")
    assert came["pos/charges"] == [came["pos/charge"]]
    assert came["pos/refund"].amount == Amount(500, "EUR")
    assert came["pos/cancel"] == came["pos/reverse"]
    assert came["pos/heartbeat"].actions == {"update"}
    assert came["pos/claim"].device_id == "POS-8F3A2C91"


def test_what_was_sent_is_the_protocols_json(walked):
    _, sent = walked
    session = {"client_id": "mrc_1", "client_secret": SECRET, "grant_type": "client_credentials"}
    assert json.loads(sent["client/session"].body) == json.loads(sent["auth/token"].body) == session
    assert json.loads(sent["session/initiate"].body) == {"host": "merchant.viopay.io"}
    assert json.loads(sent["pos/claim"].body) == {"pairing_code": "K7M3NP"}
    flags = {"emv_ready": True, "keys_installed": True, "network_ok": True}
    assert json.loads(envelope.open_envelope(MSK, sent["pos/activate"].body, limit=999)) == flags
    beat = {"uptime_sec": 60, "pending": 0, "version": "0.1.0"}
    assert json.loads(envelope.open_envelope(MSK, sent["pos/heartbeat"].body, limit=999)) == beat
    assert sent["pos/charge"].body == sent["pos/refund"].body == BODY
    assert sent["pos/cancel"].body == b""


# --- how each level authenticates ------------------------------------------------------------------------

AGENT = user_agent("0.1.0", "Tillwright")


def of_level(request: Request) -> dict[str, str]:
    plain = {"host", "accept", "accept-encoding", "content-length", "content-type", "idempotency-key"}
    return {name: value for name, value in request.headers.items() if name not in plain}


def mac(key: bytes, message: bytes) -> str:
    return "v1=" + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def test_bearer(walked):
    for name in ("session/initiate", "pos/claim"):
        assert of_level(walked[1][name]) == {"authorization": f"Bearer {TOKEN}"}


def test_activation(walked):
    for name in ("pos/bootstrap", "pos/pairing-code", "pos/status"):
        wanted = {"x-device-id": "POS-8F3A2C91", "user-agent": AGENT, "x-client-type": "pos"}
        assert of_level(walked[1][name]) == wanted


def test_attestation_token(walked):
    for name in ("pos/keys", "pos/config", "pos/terminal-parameters", "pos/activate"):
        wanted = {"authorization": f"Attestation {TOKEN}", "x-device-id": "POS-8F3A2C91"}
        assert of_level(walked[1][name]) == wanted


def test_attest_signs_device_key_time_and_nonce(walked):
    told = of_level(walked[1]["pos/attest"])
    message = f"POS-8F3A2C91\nidk-1\n{told['x-timestamp']}\n{told['x-nonce']}".encode()
    assert told == {
        "x-device-id": "POS-8F3A2C91",
        "user-agent": AGENT,
        "x-client-type": "pos",
        "x-key-id": "idk-1",
        "x-timestamp": "2025-12-13T14:25:30Z",
        "x-nonce": told["x-nonce"],
        "x-signature": mac(IDENTITY, message),
    }


@pytest.mark.parametrize("scheme", ["prefixed", "body"])
@pytest.mark.parametrize("name", ["pos/charge", "pos/cancel"])
def test_payments_sign_the_raw_body(scheme, name):
    call, answer = next((call, answer) for each, call, answer in WALK if each == name)
    _, request = one(call, answer, signature_scheme=scheme)
    told = of_level(request)
    prefix = f"TID-004812\n{told['x-key-id']}\n{told['x-timestamp']}\n{told['x-nonce']}\n".encode()
    signed = request.body if scheme == "body" else prefix + request.body
    assert told == {
        "x-terminal-id": "TID-004812",
        "user-agent": AGENT,
        "x-client-type": "pos",
        "x-key-id": "mac-of-ks-1" if name == "pos/charge" else "mac-of-None",
        "x-timestamp": "2025-12-13T14:25:30Z",
        "x-nonce": told["x-nonce"],
        "x-signature": mac(MAC, signed),
    }
    assert re.fullmatch(r"[A-Za-z0-9]{20,}", told["x-nonce"])


def test_the_agent_says_version_system_and_model():
    assert user_agent("1.2.3", "Kiosk", "Linux") == "Viopay-POS/1.2.3 (Linux; Kiosk)"
    assert re.fullmatch(r"Viopay-POS/0\.1\.0 \(\w+; Tillwright\)", AGENT)


@pytest.mark.parametrize("model", ["", "a\r\nX-Y: z", "Käse", "a)b", "a;b"])
def test_a_model_that_no_header_can_carry_is_a_setting_at_fault(model):
    with pytest.raises(SettingsError, match=r"host\.model"):
        user_agent("0.1.0", model)


# --- repeats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pos/charge", "pos/refund", "pos/cancel"])
def test_a_repeat_is_the_same_request_signed_anew(name):
    call, answer = next((call, answer) for each, call, answer in WALK if each == name)
    _, host = run(lambda: walk([call], [Cut(), error(500, "5000"), answer]))
    first, *others = host.requests
    assert len(others) == 2
    for other in others:
        assert (other.method, other.target, other.body) == (first.method, first.target, first.body)
        assert other.headers.get("idempotency-key") == first.headers.get("idempotency-key")
        assert other.headers["x-key-id"] == first.headers["x-key-id"]
    for header in ("x-nonce", "x-timestamp", "x-signature"):
        assert len({request.headers[header] for request in host.requests}) == 3


def test_what_may_act_twice_is_sent_once():
    async def main() -> None:
        for name in ("pos/claim", "pos/activate", "pos/heartbeat"):
            call = next(call for each, call, _ in WALK if each == name)
            async with ScriptedHost([Cut()]) as host:
                told = HostSettings(url=host.url)
                async with HostSession(told, random=bytes) as session:
                    client = ViopayClient(session, Keys(), ticking(), bytes, told)  # type: ignore[arg-type]
                    with pytest.raises(HostSilent):
                        await call(client, MerchantClient(session))
            assert len(host.requests) == 1

    run(main)


# --- answers that do not fit -----------------------------------------------------------------------------


def test_an_answer_under_another_key_does_not_open():
    with pytest.raises(EnvelopeError):
        one(lambda c, m: c.charge(BODY, "i", "ks-1"), sealed(CHARGE, bytes(32)))


def test_an_answer_in_the_clear_is_not_believed():
    with pytest.raises(EnvelopeError):
        one(lambda c, m: c.charge(BODY, "i", "ks-1"), reply(CHARGE))


def test_a_named_key_set_signs_and_opens():
    keys = Keys()
    asyncio.run(walk([lambda c, m: c.charge(BODY, "i", "ks-old")], [sealed(CHARGE)], keys))
    assert keys.used == ["ks-old", "ks-old"]


@pytest.mark.parametrize(
    ("call", "answer", "field"),
    [
        (lambda c: c.cancel("ch_other"), CANCEL, "id"),
        (lambda c: c.charge_by_id("ch_other"), CHARGE, "id"),
        (lambda c: c.refund_status("rf_other"), REFUND, "id"),
        (lambda c: c.refund("ch_other", BODY, "i", "ks-1"), REFUND, "charge_id"),
        (lambda c: c.charges_by_reference("order-18"), {"charges": [CHARGE]}, "charges[0].reference"),
    ],
)
def test_an_answer_about_another_is_refused(call, answer, field):
    with pytest.raises(HostAnswerInvalid) as caught:
        one(lambda c, m: call(c), sealed(answer))
    assert caught.value.field == field


def test_a_reference_is_quoted_in_the_path():
    _, request = one(lambda c, m: c.charges_by_reference("a/b?c&d=é #%"), sealed({"charges": []}))
    assert request.target == "/pos/charge?reference=a%2Fb%3Fc%26d%3D%C3%A9%20%23%25"


@pytest.mark.parametrize("typed", ["", "order-17", "ch_", "ch_a/../b", "ch_a\n", "rf_a", "ch_" + "a" * 65])
def test_an_id_that_the_host_never_gave_goes_nowhere(typed):
    async def main() -> None:
        for method in ("cancel", "reverse", "charge_by_id"):
            with pytest.raises(PaymentRefused, match="is not an id"):
                await walk([lambda c, m, method=method: getattr(c, method)(typed)], [reply()])
        with pytest.raises(PaymentRefused, match="is not an id"):
            await walk([lambda c, m: c.refund(typed, BODY, "i", "ks-1")], [reply()])

    asyncio.run(main())


def test_a_host_without_lookup_is_not_asked():
    for call in (lambda c, m: c.charge_by_id("ch_a"), lambda c, m: c.charges_by_reference("r")):
        with pytest.raises(SettingsError, match="offers_lookup"):
            one(call, reply(), offers_lookup=False)


# --- refusals and secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["4010", "4011", "4030", "4031", "4260", "4290"])
def test_a_refusal_that_a_person_can_mend_says_how(code):
    with pytest.raises(HostRefused) as caught:
        one(lambda c, m: c.charge(BODY, "i", "ks-1"), error(400, code))
    assert caught.value.code == code
    assert caught.value.advice


@pytest.mark.parametrize(
    "answer",
    [
        error(401, "4010", f"no such token {TOKEN}, secret {base64.b64encode(MAC).decode()}, {MAC.hex()}"),
        error(400, "4000", "card 4761739001010119 or 4761 7390 0101 0119 or 4761-7390-0101-0119"),
        reply({"status": "attested", "attestation_token": TOKEN + "\n", "expires_in_sec": 1}),
        reply({"status": TOKEN, "attestation_token": TOKEN, "expires_in_sec": 1}),
        reply({"status": "x - at `$." + TOKEN, "attestation_token": 1, "expires_in_sec": 1}),
        reply({TOKEN: TOKEN}),
        reply(b"{" + TOKEN.encode()),
        reply(TOKEN.encode()),
    ],
)
def test_no_error_shows_what_is_secret(answer):
    async def main() -> None:
        for call in (
            lambda c, m: c.attest(),
            lambda c, m: c.keys(TOKEN),
            lambda c, m: m.client_session("i", SECRET),
        ):
            with pytest.raises(TillError) as caught:
                await walk([call], [answer], attempts=1)
            told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.advice
            for canary in (TOKEN, SECRET, MAC.hex(), base64.b64encode(MAC).decode()):
                assert canary not in told
            assert "4761739001010119" not in re.sub("[ -]", "", told)

    asyncio.run(main())


def test_tokens_are_in_no_repr(walked):
    for name in ("pos/attest", "client/session"):
        assert TOKEN not in repr(walked[0][name])
        assert "300" in repr(walked[0][name])
