"""No secret in anything that is written: a day in the life of three terminals and their host, and then a search.

What happens (``canary_day``), each command in a process of its own and with everything talking (``-v``,
``TILL_LOG``, asyncio's debug mode, every step of httpcore and sqlite, faulthandler): one terminal has its
passphrase in the environment, another has passphrase, ZMK components, card number and PIN typed on a pty. They
activate, charge by swipe, by hand and with a PIN, refund, cancel, look at journal, keys and status. With the
third, everything fails: a function of every layer on both sides, by an error that quotes all that it was called
with and the canaries besides; the host in six ways; a process by SIGKILL, SIGINT and SIGABRT in the middle of a
charge.

Claimed: no card number, discretionary data, cardholder, PIN, passphrase, key (ZMK and components, identity, TMK to
MAC, the vault's), token or signature stands in any output, log, file in either data directory, core or temporary
file, command line, or answer of the control interface; nor, tokens and signatures apart, on the wire. What our
modules log holds none even before the filter of ``terminal.log``. Where an error is reported, the locals of our
frames show none, but for the functions in ``AT_WORK``.

Not claimed: the host's master key file, which is a key; the environment of a process (``TILL_PASSPHRASE``); the
memory of one, and so not the locals of functions while they work with a secret (``AT_WORK``), nor those of
libraries that they call. What a debugger or an error reporter would send from there, `till` never writes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import msgspec
import psec.tr31
import pytest

from hw.pan import mask_pan
from terminal.clock import system_random
from terminal.crypto.key_set import StoredSets
from terminal.crypto.keystore import Role
from terminal.crypto.vault import Passphrase, Vault
from tests.e2e.canaries import Canary, search
from tests.e2e.canary_day import (
    ACTIVATION_POINTS,
    CHARGE_POINTS,
    HOST_POINTS,
    KNOWN,
    PAN,
    PASSPHRASE,
    QUIET_POINTS,
    ROOT,
    SWIPE_POINTS,
    TYPED_PAN,
    TYPED_PASSPHRASE,
    Day,
    lived,
)

AT_WORK = {
    # The stripe, until it is a card.
    ("hw/magstripe.py", "_next_card"),
    ("hw/magstripe.py", "parse"),
    ("hw/magstripe.py", "_card"),
    # The PIN, from the keys to its block.
    ("terminal/cli/pay.py", "charge"),
    ("terminal/cli/pay.py", "work"),
    ("terminal/terminal.py", "charge"),
    ("terminal/cards.py", "charge"),
    # The PAN, until it is a keyed hash.
    ("terminal/crypto/keystore.py", "card_hash"),
    # The attestation token.
    ("terminal/fetching.py", "keys"),
    ("terminal/terminal.py", "seal"),
    # The keystore's own, on the way into a primitive.
    ("terminal/crypto/keystore.py", "pin_block"),
    ("terminal/crypto/keystore.py", "seal_card"),
    # The token, for one call.
    ("terminal/climb.py", "_fetch_keys"),
}
"""Functions of ours that may have a canary among their locals when something that they called raises."""


def keys_of(home, passphrase):
    """Every key that a terminal holds, by psec from the blocks in its vault, and the vault's own."""
    stretch = json.loads((home / "vault").read_bytes())["kdf"]
    salt, n, r, p = bytes.fromhex(stretch["salt"]), stretch["n"], stretch["r"], stretch["p"]
    memory = 129 * n * r * p
    found = {"vault": hashlib.scrypt(passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)}
    with Vault.open(home / "vault", Passphrase(passphrase), random=system_random) as vault:
        stored = msgspec.msgpack.decode(vault.get("key_sets"), type=StoredSets)
        zmk = msgspec.msgpack.decode(vault.get("zmk"))["value"]
        found |= {"ZMK": zmk, "identity": msgspec.msgpack.decode(vault.get("identity"))["value"]}
    for each in stored:
        blocks = {role: key.key_block for role, key in each.keys.items()}
        opened = {}
        for role, parent in ((Role.TMK, zmk), (Role.KEK, Role.TMK), *((role, Role.KEK) for role in blocks)):
            if role not in opened:
                opened[role] = psec.tr31.unwrap(opened.get(parent, parent), blocks[role])[1]
        assert opened[Role.MSK] == each.keys[Role.MSK].value
        found |= {f"{role} of {each.key_set_id}": key for role, key in opened.items()}
    return [Canary(f"{name} of {home.name}", key) for name, key in found.items()]


def tokens_and_signatures(heard):
    """What authenticated the calls on the wire."""
    tokens = set(re.findall(rb"att_([\w.~+/-]{8,})", heard))
    signatures = set(re.findall(rb"(?i)x-signature: *v1=([\w+/=-]+)", heard))
    assert len(tokens) >= 3
    assert len(signatures) >= 20
    return [
        *(Canary("attestation token", token, whole=True) for token in tokens),
        *(Canary("signature", base64.b64decode(signature), whole=True) for signature in signatures),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The day, what was heard on the wire, the canaries, and what authenticates on the wire."""
    day = Day(tmp_path_factory.mktemp("canary"))
    devices, tills, other, heard = lived(day)
    canaries = [*KNOWN, Canary("ZMK component 2", other)]
    canaries += [Canary("client secret", device["merchant"]["client_secret"].encode()) for device in devices]
    for till, passphrase in zip(tills, (PASSPHRASE, TYPED_PASSPHRASE, PASSPHRASE), strict=True):
        canaries += keys_of(till.home, passphrase)
    return day, heard, canaries, tokens_and_signatures(heard)


@pytest.mark.slow
def test_nothing_that_was_written_holds_a_canary(run):
    day, _, canaries, passing = run
    sought = [*canaries, *passing]
    found = {str(path.relative_to(day.folder)): search(path.read_bytes(), sought) for path in day.evidence()}
    assert {name: leaked for name, leaked in found.items() if leaked} == {}


@pytest.mark.slow
def test_the_wire_holds_none_but_what_authenticates(run):
    _, heard, canaries, passing = run
    assert search(heard, canaries) == set()
    assert search(heard, passing) == {canary.name for canary in passing}


@pytest.mark.slow
def test_everything_talked_and_everything_failed(run):
    day = run[0]
    written = {str(path.relative_to(day.folder)) for path in day.evidence()}
    assert {
        f"{name}/{kept}" for name in ("first", "second", "third") for kept in ("vault", "journal.db")
    } <= written
    assert {"host/host.db", "out/screens", "out/exchanges", "out/host.argv"} <= written
    assert not [name for name in written if Path(name).name.startswith("core")]
    for name in ("first", "third"):
        log = (day.folder / "logs" / f"{name}.log").read_text()
        for logger in ("asyncio", "httpcore.http11", "httpcore.connection", "sqlite3"):
            assert f'"logger": "{logger}"' in log, (name, logger)
        assert mask_pan(PAN) in day.said(name)
    said, raised = day.said("third"), (day.folder / "locals" / "third.raised").read_text()
    for point in (*CHARGE_POINTS, *SWIPE_POINTS, *ACTIVATION_POINTS):
        assert f"in raising {point}\n" in raised, point
    assert "an error of this program: Forced" in said
    assert said.count("\nForced\nwhich led to:\n") > 10
    assert "Fatal Python error: Aborted" in said
    assert "Executing\n" in day.said("quiet")
    assert day.said("quiet").count("an error of this program: Forced") == len(QUIET_POINTS)
    assert day.said("host").count("a request failed by our own mistake") >= len(HOST_POINTS)
    assert mask_pan(TYPED_PAN) in (day.folder / "out" / "screens").read_text()


@pytest.mark.slow
def test_the_locals_of_an_error_hold_one_only_where_work_is_done_with_it(run):
    day, _, canaries, _ = run
    sought = [*canaries, Canary("attestation token", b"'att_", whole=True)]
    values, found = set(), set()
    for path in (day.folder / "locals").iterdir():
        if path.suffix:
            continue
        for line in path.read_text().splitlines():
            file, function, shown = json.loads(line)
            place = Path(file)
            if place.is_relative_to(ROOT) and place.relative_to(ROOT).parts[0] in ("terminal", "hw", "sim"):
                where = (str(place.relative_to(ROOT)), function)
                values |= {(where, value) for value in (shown or {}).values()}
    assert len({where for where, _ in values}) > 30
    for where, value in values:
        if search(value.encode(), sought):
            found.add(where)
    assert found <= AT_WORK
