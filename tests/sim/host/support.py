"""A host in this process, a clock that stands still, and a small terminal to knock on its door."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sim.faults import Faults
from sim.host.app import HostApp, create_app
from sim.host.config import HostConfig
from sim.host.hsm import Hsm
from sim.host.ledger import Ledger
from sim.seed import seeded
from sim.virtual_time import VirtualLoop, run
from terminal.clock import rfc3339
from terminal.crypto import envelope, keyblock
from terminal.crypto.signature import Scheme, attestation_headers, hmac_sha256, nonce, request_headers

AGENT = "Viopay-POS/1.2.3 (Linux; Tillwright)"
TRACK2 = bytes.fromhex("4761739001010119D28122010000000000")
MASKED = "476173******0119"
T = TypeVar("T")


class Clock:
    """Stands still between two runs, and is the loop's during one."""

    def __init__(self) -> None:
        self._moment = datetime(2025, 12, 13, 14, 25, 30, 400_000, tzinfo=UTC)
        self._loop: VirtualLoop | None = None

    def __call__(self) -> datetime:
        return self.moment

    @property
    def moment(self) -> datetime:
        return self._moment if self._loop is None else self._loop.now()

    @moment.setter
    def moment(self, moment: datetime) -> None:
        assert self._loop is None, "while something runs, time passes by itself"
        self._moment = moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run in virtual time, from this moment on."""
        self._loop = VirtualLoop(self._moment)
        try:
            return run(main, self._loop)
        finally:
            self._moment, self._loop = self._loop.now(), None


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """HTTP status and code, the body checked on the way."""
        error = self.json["error"]
        assert set(self.json) == {"error"}
        assert set(error) == {"code", "message", "details", "trace_id"}
        assert error["message"]
        assert error["trace_id"]
        assert isinstance(error["details"], dict)
        assert self.headers["content-type"] == "application/json"
        return self.status, error["code"]

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


@dataclass
class Bench:
    path: Path | str = ":memory:"
    config: HostConfig = field(default_factory=HostConfig)
    clock: Clock = field(default_factory=Clock)
    seed: int = 7
    peer: tuple[str, int] | None = ("127.0.0.1", 40000)

    def __post_init__(self) -> None:
        self.random = seeded(self.seed, "test")
        self.open()

    def open(self) -> None:
        self.ledger = Ledger(self.path)
        random = seeded(self.seed, f"host {self.ledger.boots}")
        hsm = Hsm(b"\x42" * 32, random)
        self.app: HostApp = create_app(
            self.ledger,
            hsm=hsm,
            now=self.clock,
            random=random,
            faults=Faults(seeded(self.seed, "faults")),
            config=self.config,
        )

    def restart(self) -> None:
        self.ledger.close()
        self.open()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.clock.run(work())

    async def call(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> Reply:
        path, _, query = path.partition("?")
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        if not any(name.lower() == "host" for name, _ in pairs):
            pairs.append(("Host", "127.0.0.1:8000"))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "client": self.peer,
            "server": ("127.0.0.1", 8000),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        }
        incoming = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
        reply = Reply(0, {}, b"")

        async def receive() -> Any:
            return incoming.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                reply.body += message["body"]

        self.last = reply
        await self.app(scope, receive, send)
        return reply

    def ask(self, method: str, path: str, headers: Any = None, body: bytes | Any = b"") -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.run(lambda: self.call(method, path, headers, raw))

    def faults(self, *rules: dict[str, Any]) -> Reply:
        return self.ask("POST", "/sim/faults", None, {"rules": list(rules)})

    def device(self, *, activated: bool = True, **request: Any) -> Device:
        made = self.ask("POST", "/sim/devices", None, request)
        assert made.status == 201
        device = Device(self, made.json)
        if activated:
            device.activate()
        return device

    def charges(self) -> list[dict[str, Any]]:
        charges: list[dict[str, Any]] = self.ask("GET", "/sim/ledger").json["charges"]
        return charges


@dataclass
class Device:
    bench: Bench
    document: dict[str, Any]
    token: str = ""
    keys: dict[str, bytes] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.document["device_id"])

    @property
    def terminal_id(self) -> str:
        return str(self.document["terminal_id"])

    # --- headers ----------------------------------------------------------------------------------------------

    def client(self) -> dict[str, str]:
        return {"User-Agent": AGENT, "X-Client-Type": "pos"}

    def activation(self) -> dict[str, str]:
        return {"X-Device-Id": self.id, **self.client()}

    def identity(self, **changes: Any) -> dict[str, str]:
        secret = base64.b64decode(self.document["identity"]["secret"])
        values: dict[str, Any] = {
            "device_id": self.id,
            "key_id": self.document["identity"]["key_id"],
            "timestamp": rfc3339(self.bench.clock()),
            "nonce": nonce(self.bench.random),
            **changes,
        }
        return {**self.client(), **attestation_headers(lambda m: hmac_sha256(secret, m), **values)}

    def attestation(self) -> dict[str, str]:
        return {"Authorization": f"Attestation {self.token}", "X-Device-Id": self.id}

    def signed(self, body: bytes = b"", **changes: Any) -> dict[str, str]:
        values: dict[str, Any] = {
            "scheme": Scheme.PREFIXED,
            "terminal_id": self.terminal_id,
            "key_id": self.key_ids["mac"],
            "timestamp": rfc3339(self.bench.clock()),
            "nonce": nonce(self.bench.random),
            "body": body,
            **changes,
        }
        return {**self.client(), **request_headers(lambda m: hmac_sha256(self.keys["mac"], m), **values)}

    # --- the way up -------------------------------------------------------------------------------------------

    def session(self) -> dict[str, str]:
        merchant = self.document["merchant"]
        made = self.bench.ask("POST", "/client/session", None, {**merchant, "grant_type": "client_credentials"})
        return {"Authorization": f"Bearer {made.json['access_token']}"}

    def merchant(self) -> dict[str, str]:
        bearer = self.session()
        assert self.bench.ask("POST", "/session/initiate", bearer, {"host": "merchant.viopay.io"}).status == 200
        return bearer

    def pairing_code(self) -> str:
        self.bench.ask("POST", "/pos/bootstrap", self.activation())
        return str(self.bench.ask("POST", "/pos/pairing-code", self.activation()).json["pairing_code"])

    def claim(self) -> Reply:
        code = self.pairing_code()
        return self.bench.ask("POST", "/pos/claim", self.merchant(), {"pairing_code": code})

    def attest(self) -> Reply:
        reply = self.bench.ask("POST", "/pos/attest", self.identity())
        if reply.status == 200:
            self.token = reply.json["attestation_token"]
        return reply

    def take_keys(self) -> Reply:
        reply = self.bench.ask("POST", "/pos/keys", self.attestation())
        if reply.status == 200:
            above = {"tmk": "zmk", "kek": "tmk", "msk": "kek", "tpk": "kek", "tdk": "kek", "mac": "kek"}
            clear = {"zmk": bytes.fromhex(self.document["zmk"]["key"])}
            for role, under in above.items():
                entry = reply.json["keys"][role]
                block = base64.b64decode(entry["key_block"]).decode("ascii")
                _, clear[role] = keyblock.unwrap(clear[under], block)
                self.key_ids[role] = entry["key_id"]
            self.keys = clear
        return reply

    def ready(self, **flags: Any) -> Reply:
        body = self.seal({"emv_ready": True, "keys_installed": True, "network_ok": True, **flags})
        return self.bench.ask("POST", "/pos/activate", self.attestation(), body)

    def activate(self) -> None:
        steps = [
            self.claim,
            self.attest,
            self.take_keys,
            lambda: self.bench.ask("POST", "/pos/config", self.attestation()),
            lambda: self.bench.ask("POST", "/pos/terminal-parameters", self.attestation()),
            self.ready,
        ]
        for step in steps:
            reply = step()
            assert reply.status == 200, reply.body

    # --- envelopes --------------------------------------------------------------------------------------------

    def seal(self, document: Any) -> bytes:
        sealed = envelope.seal(self.keys["msk"], json.dumps(document).encode(), self.bench.random)
        return envelope.encode(sealed)

    def open(self, reply: Reply) -> Any:
        assert reply.status == 200, reply.body
        return json.loads(envelope.open_envelope(self.keys["msk"], reply.body, limit=2**20))

    # --- payments ---------------------------------------------------------------------------------------------

    def order(self, minor: int | str = 1250, *, currency: str = "EUR", **changes: Any) -> dict[str, Any]:
        track2 = envelope.seal(self.keys["tdk"], TRACK2, self.bench.random)
        order: dict[str, Any] = {
            "amount": {"value": str(minor), "currency": currency},
            "entry_mode": "swipe",
            "reference": "order-17",
            "card": {"masked_pan": MASKED, "expiry": "2812", "track2": track2},
            "fallback": False,
        }
        order.update(changes)
        return {name: value for name, value in order.items() if value is not None}

    def post(self, path: str, body: bytes, key: str | None = None, **changes: Any) -> Reply:
        headers = self.signed(body, **changes)
        if key is not None:
            headers["Idempotency-Key"] = key
        return self.bench.ask("POST", path, headers, body)

    def get(self, path: str) -> Reply:
        return self.bench.ask("GET", path, self.signed())

    def charge(self, minor: int | str = 1250, key: str | None = None, **changes: Any) -> Reply:
        return self.post("/pos/charge", self.seal(self.order(minor, **changes)), key)

    def charged(self, minor: int = 1250, **changes: Any) -> Any:
        return self.open(self.charge(minor, **changes))

    def refund(self, charge_id: str, minor: int | str, key: str | None = None, **changes: Any) -> Reply:
        request = {"amount": {"value": str(minor), "currency": "EUR"}, "reason": "cold coffee", **changes}
        return self.post(f"/pos/charge/{charge_id}/refund", self.seal(request), key)

    def cancel(self, charge_id: str, how: str = "cancel") -> Reply:
        return self.post(f"/pos/charge/{charge_id}/{how}", b"")

    def status(self, charge_id: str) -> str:
        return str(self.open(self.get(f"/pos/charge/{charge_id}"))["status"])
