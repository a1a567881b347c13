"""What a restart keeps, and what a thief of the files finds."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path

import pytest

from sim.faults import Faults
from sim.host.hsm import MASTER_KEY_FILE, Hsm, HsmError, load_master_key
from sim.host.ledger import Ledger, LedgerError
from sim.host.server import LEDGER_FILE, InUse, open_host
from sim.seed import seeded
from tests.sim.host.support import TRACK2, Bench, Clock


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    bench = Bench(path=tmp_path / "host.db")
    device = bench.device()
    fresh = bench.device(activated=False)
    code = fresh.pairing_code()
    charge = device.charged(1000)
    device.refund(charge["id"], 300)
    cancelled = device.charged(1100)
    first = device.open(device.cancel(cancelled["id"]))
    body = device.seal(device.order(1200))
    retried = device.open(device.post("/pos/charge", body, "key-1"))
    used = device.signed()
    bench.ask("GET", "/pos/charge/x", used)
    parameters = bench.app.host.parameters_json
    before = bench.charges()

    bench.restart()

    assert bench.charges() == before
    assert device.open(device.post("/pos/charge", body, "key-1")) == retried
    assert device.open(device.cancel(cancelled["id"])) == first
    assert device.refund(charge["id"], 701).status == 422
    assert device.refund(charge["id"], 700).status == 200
    assert bench.ask("GET", "/pos/charge/x", used).error == (401, "4010")
    assert bench.app.host.parameters_json == parameters
    assert bench.ask("POST", "/pos/config", device.attestation()).status == 200
    assert bench.ask("POST", "/pos/claim", fresh.merchant(), {"pairing_code": code}).status == 200


def test_what_was_answered_is_committed(tmp_path: Path) -> None:
    """Another connection sees it while the host runs, and the host never closed anything."""
    bench = Bench(path=tmp_path / "host.db")
    device = bench.device()
    answer = device.open(device.charge(key="key-1"))
    other = sqlite3.connect(f"file:{tmp_path / 'host.db'}?mode=ro", uri=True)
    try:
        assert other.execute("SELECT id FROM charges").fetchall() == [(answer["id"],)]
        assert other.execute("SELECT key FROM idempotency").fetchall() == [("key-1",)]
    finally:
        other.close()
    connection = bench.ledger._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_our_own_mistake_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(path=tmp_path / "host.db")
    device = bench.device()
    body = device.seal(device.order())
    connection = bench.ledger._connection
    connection.execute(
        "CREATE TRIGGER broken BEFORE INSERT ON idempotency BEGIN SELECT raise(ABORT, 'the canary sings'); END"
    )
    headers = device.signed(body)
    headers["Idempotency-Key"] = "key-1"
    reply = bench.ask("POST", "/pos/charge", headers, body)
    assert reply.error == (500, "5000")
    assert b"canary" not in reply.body
    assert b"Traceback" not in reply.body
    assert "our own mistake" in caplog.text
    assert bench.charges() == []
    connection.execute("DROP TRIGGER broken")
    assert bench.ask("POST", "/pos/charge", headers, body).status == 200  # not even the nonce was taken


def test_no_secret_in_the_files(tmp_path: Path) -> None:
    clock = Clock()
    with open_host(tmp_path / "data", seed=7, now=clock) as app:
        bench = Bench(clock=clock)
        bench.app = app
        device = bench.device()
        charge = device.charged(1000, reference="find-me")
        device.open(device.refund(charge["id"], 100, key="find-my-key"))
        secrets = {f"key {role}": key for role, key in device.keys.items()}
        secrets["identity"] = base64.b64decode(device.document["identity"]["secret"])
        secrets["client secret"] = device.document["merchant"]["client_secret"].encode()
        secrets["token"] = device.token.encode()
        secrets["bearer"] = device.session()["Authorization"].removeprefix("Bearer ").encode()
        secrets["track 2"] = TRACK2
        secrets["pan"] = b"4761739001010119"
        files = [path for path in (tmp_path / "data").iterdir() if path.name != MASTER_KEY_FILE]
        kept = b"\0".join(path.read_bytes() for path in files)
    assert b"find-me" in kept  # the search does look where things are kept
    assert b"find-my-key" in kept
    for name, secret in secrets.items():
        for form in (secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)):
            assert form not in kept, name
    for path in (tmp_path / "data").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_seed_makes_the_same_host_and_a_restart_repeats_nothing(tmp_path: Path) -> None:
    def ids(directory: Path) -> list[str]:
        with open_host(directory, seed=7, now=Clock()) as app:
            bench = Bench()
            bench.app = app
            return [bench.device(activated=False).id for _ in range(3)]

    first, again = ids(tmp_path / "one"), ids(tmp_path / "two")
    assert first == again
    assert not set(first) & set(ids(tmp_path / "one"))


def test_one_host_for_one_directory(tmp_path: Path) -> None:
    with open_host(tmp_path), pytest.raises(InUse, match="in use"), open_host(tmp_path):
        pass
    with open_host(tmp_path):
        pass


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / LEDGER_FILE
    path.write_bytes(b"this is not a database, and never was" * 100)
    with pytest.raises(LedgerError):
        Ledger(path)
    newer = tmp_path / "newer.db"
    Ledger(newer).close()
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(LedgerError, match="format 99"):
        Ledger(newer)


def test_the_master_key(tmp_path: Path) -> None:
    random = seeded(7)
    key = load_master_key(tmp_path, random)
    path = tmp_path / MASTER_KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_master_key(tmp_path, random) == key
    sealed = Hsm(key, random).seal("a name", b"a secret")
    assert Hsm(key, random).open("a name", sealed) == b"a secret"
    for hsm, name in [(Hsm(key, random), "another name"), (Hsm(random(32), random), "a name")]:
        with pytest.raises(HsmError):
            hsm.open(name, sealed)
    with pytest.raises(HsmError):
        Hsm(key, random).open("a name", sealed[:5])
    path.chmod(0o644)
    with pytest.raises(HsmError, match="read by others"):
        load_master_key(tmp_path, random)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(HsmError, match="32 bytes"):
        load_master_key(tmp_path, random)


def test_nothing_secret_in_a_repr() -> None:
    hsm = Hsm(b"\x42" * 32, seeded(7))
    secrets, _ = hsm.make_device("POS-00000000")
    made = hsm.make_key_set("ks_1", secrets.zmk)
    live = hsm.open_key_set("ks_1", made.sealed)
    shown = f"{secrets} {made} {live} {hsm} {Faults(seeded(7))}"
    for key in (secrets.identity, secrets.zmk, live.msk, live.mac, live.tpk, live.tdk):
        assert repr(key) not in shown
        assert key.hex() not in shown


def test_the_nonces_that_are_kept_are_bounded(tmp_path: Path) -> None:
    bench = Bench()
    device = bench.device()
    bench.ledger._max_nonces = bench.ledger._nonces + 2
    assert [device.cancel("ch_x").status for _ in range(2)] == [404, 404]
    reply = device.cancel("ch_x")
    assert reply.error == (429, "4290")
    assert int(reply.headers["retry-after"]) > 0
    bench.clock.advance(400)
    assert device.cancel("ch_x").status == 404
