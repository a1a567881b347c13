from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from hashlib import scrypt
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terminal.crypto import vault_file
from terminal.crypto.vault import CredentialFile, Passphrase, Secret, Vault
from terminal.errors import KeystoreError

RANDOM = os.urandom
SECRET = Passphrase("correct horse", n=2**10)
FACTS = {"device_id": "POS-8F3A2C91", "terminal_id": "TID-004812"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def made(path: Path, secret: Secret = SECRET, **records: bytes) -> Path:
    with Vault.create(path, secret, random=RANDOM, facts=FACTS) as vault, vault.change() as draft:
        draft.records.update(records)
    return path


def contents(path: Path, secret: Secret = SECRET) -> tuple[bytes | None, dict[str, str]]:
    with Vault.open(path, secret, random=RANDOM) as vault:
        return vault.get("a"), dict(vault.facts)


def credential(path: Path, data: bytes = bytes(range(32)), mode: int = 0o400) -> CredentialFile:
    path.write_bytes(data)
    path.chmod(mode)
    return CredentialFile(path)


# --- what is kept is there again ----------------------------------------------------------------------------


def test_records_and_facts_outlive_the_process(path: Path) -> None:
    with Vault.create(path, SECRET, random=RANDOM, facts=FACTS) as vault:
        with vault.change() as draft:
            draft.records["a"] = b"\x00\xff secret"
            draft.facts["level"] = "claimed"
        assert vault.get("a") == b"\x00\xff secret"
        assert vault.facts == {**FACTS, "level": "claimed"}
    assert contents(path) == (b"\x00\xff secret", {**FACTS, "level": "claimed"})
    assert Vault.read_facts(path) == {**FACTS, "level": "claimed"}
    assert b"secret" not in path.read_bytes()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(max_size=9), st.binary(max_size=99), max_size=4),
    st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4),
)
def test_whatever_is_put_in_comes_out(path: Path, records: dict[str, bytes], facts: dict[str, str]) -> None:
    path.unlink(missing_ok=True)
    with Vault.create(path, SECRET, random=RANDOM, facts=facts) as vault, vault.change() as draft:
        draft.records.update(records)
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        assert {name: vault.get(name) for name in records} == records
        assert vault.facts == facts


def test_the_file_is_private_from_the_moment_it_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real_open = os.open

    def watching_open(name: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        descriptor = real_open(name, flags, mode, **rest)
        if flags & os.O_CREAT:
            modes.append((Path(name).name, stat.S_IMODE(os.fstat(descriptor).st_mode), bool(flags & os.O_EXCL)))
        return descriptor

    before = os.umask(0)
    try:
        monkeypatch.setattr(os, "open", watching_open)
        made(path, a=b"1")
    finally:
        os.umask(before)
    assert set(modes) == {("vault.lock", 0o600, False), ("vault.new", 0o600, True)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_may_read_is_closed_to_them(path: Path) -> None:
    made(path).chmod(0o644)
    contents(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_write_has_a_new_nonce(path: Path) -> None:
    nonces = set()
    with Vault.create(path, SECRET, random=RANDOM) as vault:
        for n in range(20):
            with vault.change() as draft:
                draft.records["a"] = bytes([n])
            nonces.add(json.loads(path.read_bytes())["nonce"])
    assert len(nonces) == 20


def test_a_change_that_changes_nothing_writes_nothing(path: Path) -> None:
    made(path, a=b"1")
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        before = path.read_bytes()
        with vault.change() as draft:
            draft.records["a"] = b"1"
        assert path.read_bytes() == before


def test_an_exception_in_a_change_leaves_everything_as_it_was(path: Path) -> None:
    made(path, a=b"1")
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        with contextlib.suppress(LookupError), vault.change() as draft:
            draft.records["a"] = b"2"
            draft.facts["x"] = "y"
            raise LookupError
        assert vault.get("a") == b"1"
        assert vault.facts == FACTS
        with vault.change() as draft:
            assert draft.records == {"a": b"1"}
    assert contents(path) == (b"1", FACTS)


def test_a_draft_takes_bytes_and_text_alone(path: Path) -> None:
    made(path, a=b"1")
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        for name, value in (("records", "text"), ("facts", 1)):
            with pytest.raises(TypeError), vault.change() as draft:
                getattr(draft, name)["b"] = value
    assert contents(path) == (b"1", FACTS)


def test_a_change_inside_a_change_is_refused(path: Path) -> None:
    made(path)
    with Vault.open(path, SECRET, random=RANDOM) as vault, vault.change() as draft:
        draft.records["a"] = b"outer"
        with pytest.raises(KeystoreError, match="being changed"), vault.change():
            raise AssertionError
    assert contents(path)[0] == b"outer"


def test_a_closed_vault_gives_nothing(path: Path) -> None:
    made(path, a=b"1")
    vault = Vault.open(path, SECRET, random=RANDOM)
    vault.close()
    vault.close()
    assert vault.closed
    for use in (lambda: vault.get("a"), lambda: vault.facts, lambda: vault.change().__enter__()):
        with pytest.raises(KeystoreError, match="closed"):
            use()


# --- secrets ------------------------------------------------------------------------------------------------


def test_a_wrong_passphrase_does_not_open(path: Path) -> None:
    made(path)
    with pytest.raises(KeystoreError, match="passphrase"):
        Vault.open(path, Passphrase("correct hors", n=2**10), random=RANDOM)
    with pytest.raises(KeystoreError, match="empty"):
        Passphrase("")


def test_a_passphrase_is_the_same_however_it_was_composed(path: Path) -> None:
    made(path, Passphrase("caf\u00e9", n=2**10), a=b"1")
    assert contents(path, Passphrase("cafe\u0301"))[0] == b"1"


def test_a_passphrase_that_is_not_text_is_said_and_not_kept_in_the_error(path: Path) -> None:
    for secret in (Passphrase("caf\udce9", n=2**10), Passphrase("\ud800", n=2**10)):
        with pytest.raises(KeystoreError, match="passphrase is not UTF-8") as caught:
            Vault.create(path, secret, random=RANDOM)
        assert caught.value.__context__ is None
        assert not path.exists()


def test_the_key_is_made_by_scrypt() -> None:
    """RFC 7914, held to OpenSSL's by way of hashlib."""
    kdf = {"name": "scrypt", "salt": "11" * 32, "n": 2**10, "r": 8, "p": 1}
    sealed = SECRET.cipher(kdf).encrypt(bytes(12), b"x", None)
    key = scrypt(b"correct horse", salt=b"\x11" * 32, n=2**10, r=8, p=1, dklen=32)
    assert AESGCM(key).decrypt(bytes(12), sealed, None) == b"x"


def test_the_default_work_of_a_passphrase_is_the_recommended_one() -> None:
    kdf = Passphrase("x").new_kdf(RANDOM)
    assert (kdf["name"], kdf["n"], kdf["r"], kdf["p"], len(kdf["salt"])) == ("scrypt", 2**17, 8, 1, 64)


def test_a_credential_file_opens(path: Path, tmp_path: Path) -> None:
    secret = credential(tmp_path / "credential")
    made(path, secret, a=b"1")
    assert contents(path, secret)[0] == b"1"
    with pytest.raises(KeystoreError, match="does not open"):
        contents(path, credential(tmp_path / "other", bytes(32)))
    with pytest.raises(KeystoreError, match="other kind"):
        contents(path)


@pytest.mark.parametrize(("size", "fits"), [(0, False), (31, False), (32, True), (65536, True), (65537, False)])
def test_a_credential_has_a_size(path: Path, tmp_path: Path, size: int, fits: bool) -> None:
    secret = credential(tmp_path / "credential", b"\x07" * size)
    with contextlib.nullcontext() if fits else pytest.raises(KeystoreError, match="32 bytes to 64 KiB"):
        made(path, secret)


@pytest.mark.parametrize("mode", [0o640, 0o440, 0o604, 0o420, 0o444, 0o410])
def test_a_credential_that_others_can_reach_is_refused(path: Path, tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeystoreError, match="others can read") as caught:
        made(path, credential(tmp_path / "credential", mode=mode))
    assert "chmod 400" in caught.value.advice


def test_in_the_credentials_directory_the_group_bit_is_the_mask_of_an_access_list(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "credentials"
    directory.mkdir()
    credential(directory / "till", mode=0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    made(path, CredentialFile(directory / "till"))
    for mode in (0o444, 0o460):
        (directory / "till").chmod(mode)
        with pytest.raises(KeystoreError, match="others can read"):
            contents(path, CredentialFile(directory / "till"))
    (directory / "till").chmod(0o440)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    credential(tmp_path / "elsewhere", mode=0o440)
    (directory / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeystoreError, match="others can read"):
        contents(path, CredentialFile(directory / "out", credentials_directory=directory))


def test_a_credential_of_another_user_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = credential(tmp_path / "credential")
    real = os.fstat
    owner = os.geteuid() + 1

    def fstat(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[stat.ST_UID] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(KeystoreError, match="others can read or replace"):
        secret.cipher(secret.new_kdf(RANDOM))
    owner = 0  # root's, as systemd hands it in
    secret.cipher(secret.new_kdf(RANDOM))


def test_a_credential_must_be_a_file_that_is_there(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o400)
    with pytest.raises(KeystoreError, match="regular file"):
        made(path, CredentialFile(tmp_path / "fifo"))
    with pytest.raises(KeystoreError, match="no such file"):
        made(path, CredentialFile(tmp_path / "missing"))
    assert not path.exists()


# --- one writer ---------------------------------------------------------------------------------------------


def test_a_second_opener_is_refused_until_the_first_closes(path: Path) -> None:
    made(path)
    with Vault.open(path, SECRET, random=RANDOM):
        with pytest.raises(KeystoreError, match=f"in use by process {os.getpid()}"):
            Vault.open(path, SECRET, random=RANDOM)
        assert Vault.read_facts(path) == FACTS
    contents(path)


def test_another_process_is_refused(path: Path) -> None:
    made(path)
    program = (
        "import os, sys; from terminal.crypto.vault import Passphrase, Vault; from terminal.errors import *\n"
        "try: Vault.open(sys.argv[1], Passphrase('correct horse'), random=os.urandom)\n"
        "except KeystoreError as error: print(error)"
    )
    with Vault.open(path, SECRET, random=RANDOM):
        run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert run.stdout == f"{path} is in use by process {os.getpid()}\n"


def test_a_lock_that_leads_elsewhere_is_not_followed(path: Path) -> None:
    made(path)
    path.with_name("vault.lock").unlink()
    path.with_name("vault.lock").symlink_to(path.with_name("elsewhere"))
    with pytest.raises(KeystoreError, match="cannot be locked"):
        Vault.open(path, SECRET, random=RANDOM)
    assert not path.with_name("elsewhere").exists()


def test_a_vault_that_did_not_open_is_not_locked(path: Path) -> None:
    made(path)
    with pytest.raises(KeystoreError):
        Vault.open(path, Passphrase("wrong", n=2**10), random=RANDOM)
    contents(path)


def test_a_vault_is_not_written_over_by_a_new_one(path: Path) -> None:
    made(path, a=b"1")
    with pytest.raises(KeystoreError, match="already"):
        Vault.create(path, SECRET, random=RANDOM)
    assert contents(path)[0] == b"1"


def test_what_a_crash_left_behind_is_cleared_away(path: Path) -> None:
    made(path, a=b"1")
    path.with_name("vault.new").write_bytes(b"half")
    contents(path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["vault", "vault.lock"]


def test_a_missing_vault_says_so_and_leaves_nothing_behind(path: Path) -> None:
    for use in (lambda: Vault.open(path, SECRET, random=RANDOM), lambda: Vault.read_facts(path)):
        with pytest.raises(KeystoreError, match="there is no keystore") as caught:
            use()
        assert "till provision" in caught.value.advice
    assert list(path.parent.iterdir()) == []


def test_a_vault_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="no such file or directory"):
        Vault.create(tmp_path / "none" / "vault", SECRET, random=RANDOM)


# --- power cuts, full disks ---------------------------------------------------------------------------------

STEPS = ["open", "write", "fsync", "replace"]


def failing(step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> None:
    """Let the given call of ``os`` fail after so many that go well; a write goes half way first."""
    real: Callable[..., Any] = getattr(os, step)
    left = after

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            return real(*args, **kwargs)
        if step == "write":
            real(args[0], args[1][: len(args[1]) // 2])
        raise error

    monkeypatch.setattr(os, step, call)


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not"),
        (errno.EIO, "disk reports an error"),
        (errno.ENAMETOOLONG, "too long"),
    ],
)
@pytest.mark.parametrize("step", STEPS)
def test_a_failing_disk_leaves_the_old_and_says_why(
    path: Path, step: str, number: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path, a=b"old")
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        with monkeypatch.context() as patch:
            failing(step, OSError(number, os.strerror(number)), patch)
            with pytest.raises(KeystoreError, match=why) as caught, vault.change() as draft:
                draft.records["a"] = b"new"
        assert caught.value.advice
        assert not isinstance(caught.value, vault_file.Unconfirmed)
        assert vault.get("a") == b"old"
        assert not path.with_name("vault.new").exists()
        with vault.change() as draft:  # once there is room again, it goes on
            draft.records["a"] = b"newer"
    assert contents(path)[0] == b"newer"


def test_a_directory_that_cannot_be_flushed_leaves_file_and_vault_at_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path, a=b"old")
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        with monkeypatch.context() as patch:
            failing("fsync", OSError(errno.EIO, "bad disk"), patch, after=1)
            with pytest.raises(vault_file.Unconfirmed, match="not confirmed"), vault.change() as draft:
                draft.records["a"] = b"new"
        assert vault.get("a") == b"new"
    assert contents(path)[0] == b"new"


@pytest.mark.parametrize(
    ("step", "after", "left"),
    [
        ("open", 0, b"old"),
        ("open", 1, b"old"),
        ("write", 0, b"old"),
        ("fsync", 0, b"old"),
        ("replace", 0, b"old"),
        ("fsync", 1, b"new"),
    ],
)
def test_a_power_cut_leaves_the_old_or_the_new(path: Path, step: str, after: int, left: bytes) -> None:
    """As far as a process can tell: nothing of ours runs after the cut, and another process reads the file."""
    made(path, a=b"old")
    program = (
        "import os, sys; from terminal.crypto.vault import Passphrase, Vault\n"
        "vault = Vault.open(sys.argv[1], Passphrase('correct horse'), random=os.urandom)\n"
        "real, left = getattr(os, sys.argv[2]), int(sys.argv[3])\n"
        "def call(*args, **kwargs):\n"
        "    global left\n"
        "    if not left:\n"
        "        if sys.argv[2] == 'write': real(args[0], args[1][:9])\n"
        "        os._exit(9)\n"
        "    left -= 1\n"
        "    return real(*args, **kwargs)\n"
        "setattr(os, sys.argv[2], call)\n"
        "with vault.change() as draft: draft.records['a'] = b'new'\n"
    )
    run = subprocess.run([sys.executable, "-c", program, path, step, str(after)], check=False)
    assert run.returncode == 9
    assert contents(path)[0] == left
    assert not path.with_name("vault.new").exists()


def test_a_short_write_is_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(path)
    real = os.write
    with Vault.open(path, SECRET, random=RANDOM) as vault, monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
        with vault.change() as draft:
            draft.records["a"] = b"whole"
    assert contents(path)[0] == b"whole"


def test_a_vault_that_would_be_too_large_to_read_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path, a=b"old")
    monkeypatch.setattr(vault_file, "MAX_FILE", 2000)
    with Vault.open(path, SECRET, random=RANDOM) as vault:
        with pytest.raises(KeystoreError, match="larger than"), vault.change() as draft:
            draft.records["a"] = bytes(3000)
        assert vault.get("a") == b"old"


@pytest.mark.parametrize("name", ["vault", "vault.lock"])
def test_what_cannot_be_read_is_said(path: Path, name: str) -> None:
    made(path)
    (path.parent / name).unlink()
    (path.parent / name).mkdir()
    with pytest.raises(KeystoreError, match=r"cannot be|directory"):
        Vault.open(path, SECRET, random=RANDOM)
    if name == "vault":
        with pytest.raises(KeystoreError, match="cannot be read"):
            Vault.read_facts(path)


def test_what_a_crash_left_behind_and_cannot_be_cleared_away_is_said(path: Path) -> None:
    made(path)
    path.with_name("vault.new").mkdir()
    with pytest.raises(KeystoreError, match="cannot be opened for writing"):
        Vault.open(path, SECRET, random=RANDOM)


def test_a_credential_that_a_failing_disk_holds_is_said(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = credential(tmp_path / "credential")

    class Failing(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr("terminal.crypto.vault.open", Failing, raising=False)
    with pytest.raises(KeystoreError, match="credential cannot be read"):
        secret.cipher(secret.new_kdf(RANDOM))


def test_records_that_are_sealed_well_and_are_none_of_ours_are_refused(path: Path) -> None:
    made(path)
    document = vault_file.read(path)
    sealed = SECRET.cipher(document.kdf).encrypt(
        bytes(12), b"no records", vault_file.associated(document.kdf, document.facts)
    )
    altered(path, nonce="00" * 12, sealed=base64.b64encode(sealed).decode())
    with pytest.raises(KeystoreError, match="is damaged"):
        Vault.open(path, SECRET, random=RANDOM)


def test_a_lock_that_fails_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(path)

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(KeystoreError, match="cannot be locked"):
        Vault.open(path, SECRET, random=RANDOM)


# --- bytes that are not ours --------------------------------------------------------------------------------


def altered(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def test_a_newer_vault_is_not_touched(path: Path) -> None:
    made(path)
    altered(path, version=2, more="x")
    before = path.read_bytes()
    for use in (lambda: Vault.open(path, SECRET, random=RANDOM), lambda: Vault.read_facts(path)):
        with pytest.raises(KeystoreError, match="newer version"):
            use()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"facts": {**FACTS, "terminal_id": "TID-000000"}},
        {"facts": {}},
        {"facts": {**FACTS, "x": 1}},
        {"facts": []},
        {"format": "other"},
        {"version": 0},
        {"version": True},
        {"version": "1"},
        {"more": 1},
        {"nonce": "00" * 12},
        {"nonce": "00" * 11},
        {"nonce": "zz" * 12},
        {"nonce": None},
        {"sealed": ""},
        {"sealed": "A"},
        {"sealed": "AAAA\n"},
        {"sealed": base64.b64encode(bytes(64)).decode()},
        {"kdf": None},
        {"kdf": {}},
        {"kdf": {"name": "scrypt"}},
    ],
)
def test_a_vault_that_was_changed_by_hand_is_refused(path: Path, changes: dict[str, object]) -> None:
    made(path)
    altered(path, **changes)
    with pytest.raises(KeystoreError):
        Vault.open(path, SECRET, random=RANDOM)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2**21},
        {"n": 2**62},
        {"n": 2**9},
        {"n": 2**17 + 1},
        {"n": 0},
        {"n": -1024},
        {"n": "1024"},
        {"n": True},
        {"n": 1024.0},
        {"r": 0},
        {"r": 33},
        {"r": 32, "n": 2**18},
        {"p": 0},
        {"p": 17},
        {"p": 16, "n": 2**18},
        {"salt": ""},
        {"salt": "00" * 31},
        {"salt": 3},
        {"name": "hkdf-sha256"},
        {"name": "pbkdf2"},
        {"more": 1},
    ],
)
def test_the_work_that_a_file_asks_for_has_limits(
    path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path)
    kdf = json.loads(path.read_bytes())["kdf"]
    altered(path, kdf={**kdf, **changes})

    def never(**_: object) -> None:
        raise AssertionError("scrypt was started")

    monkeypatch.setattr("terminal.crypto.vault.Scrypt", never)
    with pytest.raises(KeystoreError, match="damaged"):
        Vault.open(path, SECRET, random=RANDOM)
    if "n" in changes and isinstance(changes["n"], int):
        with pytest.raises(KeystoreError, match="power of two"):
            Vault.create(path.with_name("new"), Passphrase("x", n=2**9), random=RANDOM)


def test_more_memory_than_there_is_is_a_typed_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(path)

    def exhausted(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("terminal.crypto.vault.Scrypt", exhausted)
    with pytest.raises(KeystoreError, match="memory"):
        Vault.open(path, SECRET, random=RANDOM)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_the_same(path: Path, data: st.DataObject) -> None:
    if not path.exists():
        made(path, credential(path.with_name("credential")), a=b"old")
    secret = CredentialFile(path.with_name("credential"))
    whole = path.read_bytes()
    changed = bytearray(whole)
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    else:
        del changed[data.draw(st.integers(0, len(whole) - 1)) :]
    path.write_bytes(changed)
    try:
        with contextlib.suppress(KeystoreError):
            assert contents(path, secret) == (b"old", FACTS)
        with contextlib.suppress(KeystoreError):
            Vault.read_facts(path)
    finally:
        path.write_bytes(whole)


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b"1" * 5000, b'{"format":' * 50_000]))
def test_noise_is_no_vault(data: bytes) -> None:
    with pytest.raises(KeystoreError):
        vault_file.parse(Path("vault"), data)


def test_a_huge_file_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(vault_file.MAX_FILE + 1)
    with pytest.raises(KeystoreError, match="damaged"):
        vault_file.parse(path, bytes(vault_file.MAX_FILE + 1))
    with pytest.raises(KeystoreError, match="damaged"):
        Vault.read_facts(path)


def test_the_facts_are_read_without_any_cryptography(path: Path) -> None:
    made(path)
    program = (
        "import sys; from terminal.crypto.vault_file import read_facts\n"
        "print(read_facts(sys.argv[1])['device_id'])\n"
        "heavy = {'cryptography', 'click', 'httpx', 'msgspec', 'asyncio', 'starlette'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert run.stdout == "POS-8F3A2C91\n[]\n"


def test_the_file_is_json_whatever_its_facts_are():
    facts = {"of a shop": 'Käse & "Brot"\n', "\\": "}"}
    document = vault_file.Document({"name": "hkdf"}, facts, b"n" * 12, bytes(range(256)))
    told = json.loads(document.encode())
    assert told["facts"] == facts
    assert base64.b64decode(told["sealed"]) == document.sealed
    assert bytes.fromhex(told["nonce"]) == document.nonce
    assert document.encode() == json.dumps(told, indent=1).encode() + b"\n"
