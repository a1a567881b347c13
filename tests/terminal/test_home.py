from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import os
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from terminal import home as terminal_home
from terminal import settings as settings_file
from terminal.crypto.ceremony import Component
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.keystore import Keystore, Role
from terminal.crypto.vault import CredentialFile, Secret, Vault
from terminal.disk import Disk
from terminal.errors import JournalDamaged, JournalError, JournalUnwritable, LiveGuardError, TillError
from terminal.journal import Journal
from terminal.journal_care import set_aside
from terminal.terminal import Terminal
from tests.terminal.test_journal import NOON, charge

SIMULATOR, LIVE = "http://127.0.0.1:8080", "https://pos.example"
ZMK = b"Canary-zmk-that-sings-32-bytes!!"
IDENTITY = b"Canary-identity-secret-32-bytes!"
DOCUMENT: dict[str, Any] = {
    "device_id": "POS-8F3A2C91",
    "terminal_id": "TID-004812",
    "identity": {"key_id": "idk_1", "secret": base64.b64encode(IDENTITY).decode()},
    "zmk": {"key": ZMK.hex(), "kcv": aes_kcv(ZMK)},
}


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    (tmp_path / "credential").write_bytes(bytes(range(32)))
    (tmp_path / "credential").chmod(0o400)
    return CredentialFile(tmp_path / "credential")


def provision(home: Path, secret: Secret, url: str = SIMULATOR, **changes: Any) -> None:
    components = changes.pop("components", ())
    document = terminal_home.parse_document(json.dumps(DOCUMENT | changes).encode())
    terminal_home.provision(
        home, document, url, secret, random=os.urandom, components=components, zmk_kcv=aes_kcv(ZMK)
    )


def is_whole(home: Path, secret: Secret) -> None:
    with Vault.open(home / "vault", secret, random=os.urandom) as vault:
        keystore = Keystore(vault, os.urandom)
        assert [fact.role for fact in keystore.facts()] == [Role.ZMK, Role.IDENTITY]
        assert keystore.device_id == "POS-8F3A2C91"


WRONG: list[dict[str, Any]] = [
    {"device_id": ""},
    {"terminal_id": "a\nb"},
    {"identity": {"key_id": "", "secret": "AAAA" * 8}},
    {"identity": {"key_id": "k", "secret": "AAAA"}},
    {"identity": {"key_id": "k", "secret": "é" * 24}},
    {"identity": {"key_id": "k", "secret": "AAA"}},
    {"zmk": {"key": ZMK.hex(), "kcv": "000000"}},
    {"zmk": {"key": ZMK.hex(), "kcv": ""}},
    {"zmk": {"key": ZMK.hex()[2:], "kcv": "000000"}},
    {"zmk": {"key": "é" * 64, "kcv": "000000"}},
    {"components": (Component(ZMK, aes_kcv(ZMK)),)},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_document_leaves_nothing_and_the_right_one_follows(
    tmp_path: Path, secret: Secret, wrong: dict[str, Any]
) -> None:
    home = tmp_path / "home"
    with pytest.raises(TillError):
        provision(home, secret, **wrong)
    assert not home.exists()
    provision(home, secret)
    is_whole(home, secret)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_provisioning_that_the_disk_cut_short_is_made_again(
    tmp_path: Path, secret: Secret, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails for good at each call in turn: there is a whole vault or none."""
    real: Callable[..., Any] = getattr(os, step)
    for passed in range(100):
        home, left = tmp_path / str(passed), passed

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left -= 1
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, step, call)
            try:
                provision(home, secret)
            except TillError:
                pass
            else:
                break
        if not (home / "vault").exists():
            provision(home, secret)
        is_whole(home, secret)
    assert passed


def test_a_clear_zmk_is_for_a_simulator_on_this_machine(tmp_path: Path, secret: Secret) -> None:
    with pytest.raises(TillError, match="on this machine only"):
        provision(tmp_path / "home", secret, LIVE)
    assert not (tmp_path / "home").exists()


def with_locals(error: TillError) -> str:
    """The traceback with the locals of each frame but this module's own."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    assert frames is not None
    return "".join(traceback.TracebackException(type(error), error, frames, capture_locals=True).format())


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_no_provisioning_that_fails_shows_a_key_even_with_locals(
    tmp_path: Path, secret: Secret, wrong: dict[str, Any]
) -> None:
    with pytest.raises(TillError) as caught:
        provision(tmp_path / "home", secret, **wrong)
    shown = with_locals(caught.value)
    assert "home = " in shown
    for key in (ZMK, IDENTITY):
        for spelling in (key.decode(), key.hex(), base64.b64encode(key).decode()):
            assert spelling not in shown


def test_a_document_of_the_wrong_shape_shows_nothing_of_itself_even_with_locals() -> None:
    for text in (
        json.dumps(DOCUMENT | {"terminal_id": 17}).encode(),
        json.dumps(DOCUMENT).encode()[:-1],
        json.dumps(DOCUMENT).encode() + b"\xff",
    ):
        with pytest.raises(TillError) as caught:
            terminal_home.parse_document(text)
        shown = with_locals(caught.value)
        assert ZMK.hex() not in shown
        assert DOCUMENT["identity"]["secret"] not in shown


def headed(path: Path) -> None:
    """What is on the disk between the journal's first page and its first commit."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("left", [Path.touch, headed, lambda path: Journal.create(path, "j1").close()])
def test_a_provisioning_that_was_cut_short_in_its_journal_is_made_again(
    tmp_path: Path, secret: Secret, left: Callable[[Path], None]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    left(home / "journal.db")
    provision(home, secret)
    is_whole(home, secret)
    Journal.open(home / "journal.db").close()


def test_what_is_not_a_journal_is_left_alone(tmp_path: Path, secret: Secret) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "journal.db").write_bytes(b"somebody's notes" * 100)
    with pytest.raises(JournalDamaged):
        provision(home, secret)
    assert not (home / "vault").exists()
    assert (home / "journal.db").read_bytes().startswith(b"somebody's notes")


def test_payments_of_a_journal_that_was_half_set_aside_are_not_provisioned_over(
    tmp_path: Path, secret: Secret
) -> None:
    class Stuck(Disk):
        def rename(self, path: Path, to: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    home = tmp_path / "home"
    home.mkdir()
    path = home / "journal.db"
    with contextlib.closing(Journal.create(path, "j1")) as journal:
        journal.begin(charge(), None)
    with pytest.raises(JournalUnwritable):
        set_aside(path, "j1", now=NOON, disk=Stuck())
    path.rename(home / "journal.db.damaged-20251213T120000Z")  # as far as it came
    with pytest.raises(JournalError, match="holds payments"):
        provision(home, secret)
    with contextlib.closing(Journal.open(path)) as journal:
        assert [payment.id for payment in journal.payments()] == [charge().id]


def test_a_terminal_whose_zmk_came_in_the_clear_opens_for_a_simulator_only(tmp_path: Path, secret: Secret) -> None:
    """The URL is a setting: editing it afterwards does not take the ZMK along."""
    first = os.urandom(32)
    halves = [first, bytes(a ^ b for a, b in zip(first, ZMK, strict=True))]
    ceremony = tuple(Component(half, aes_kcv(half)) for half in halves)

    async def opened(home: Path, url: str) -> None:
        settings = settings_file.load(home)
        host = msgspec.structs.replace(settings.host, url=url)
        async with Terminal.open(msgspec.structs.replace(settings, host=host), secret=secret):
            pass

    provision(tmp_path / "clear", secret)
    provision(tmp_path / "entered", secret, components=ceremony)
    asyncio.run(opened(tmp_path / "clear", SIMULATOR))
    asyncio.run(opened(tmp_path / "entered", LIVE))
    with pytest.raises(LiveGuardError, match="came in the clear"):
        asyncio.run(opened(tmp_path / "clear", LIVE))
