"""The vault: named secret records and public facts at rest, in one file that is replaced as a whole.

AES-256-GCM under a key made of a passphrase (scrypt, RFC 7914) or of a file that the system provides, as systemd
does with its credentials (HKDF-SHA256, RFC 5869). The facts and everything else in the clear are authenticated with
the records. What it cannot see: that an older copy of the whole file was put back.

A vault holds a lock for as long as it is open, so that one process at most writes. ``read_facts`` of
``terminal.crypto.vault_file`` needs neither lock nor secret, and none of this module's imports.
"""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from terminal.clock import Random
from terminal.crypto import vault_file
from terminal.crypto.masked import Masked
from terminal.disk import REAL, Disk
from terminal.errors import KeystoreError

_KEY_LENGTH: Final = 32
_SALT_LENGTH: Final = 32
_INFO: Final = b"tillwright vault 1"

# scrypt takes 128 * n * r bytes of memory and p times as much work. A file is held to these before any is spent.
_SCRYPT_N: Final = range(2**10, 2**20 + 1)
_SCRYPT_R: Final = range(1, 33)
_SCRYPT_P: Final = range(1, 17)
_SCRYPT_MEMORY: Final = 512 * 1024 * 1024
_SCRYPT_WORK: Final = 2**24  # n * r * p: sixteen times the default

_CREDENTIAL_LENGTH: Final = range(32, 64 * 1024 + 1)


_record_map = msgspec.msgpack.Decoder(dict[str, bytes])


class Secret(Protocol):
    """Where the vault's key comes from."""

    def new_kdf(self, random: Random) -> dict[str, Any]:
        """The parameters of a new vault, as they stand in its file."""
        ...

    def cipher(self, kdf: Mapping[str, Any]) -> AESGCM:
        """The vault's cipher by those parameters; ValueError where they are not of this kind or out of bounds."""
        ...


class Passphrase(Masked):
    """A passphrase that a person enters, stretched by scrypt: 128 MiB of memory and some tenths of a second."""

    __slots__ = ("_n", "_text")

    def __init__(self, secret: str, *, n: int = 2**17) -> None:
        if not secret:
            raise KeystoreError("the passphrase is empty", advice="Choose one of several words.")
        self._text, self._n = secret, n

    def is_text(self, text: str) -> bool:
        """Whether it was made of that text: for a passphrase that is typed twice."""
        return self._text == text

    def new_kdf(self, random: Random) -> dict[str, Any]:
        """scrypt with a new salt, r = 8 and p = 1 (RFC 7914)."""
        return {"name": "scrypt", "salt": random(_SALT_LENGTH).hex(), "n": self._n, "r": 8, "p": 1}

    def cipher(self, kdf: Mapping[str, Any]) -> AESGCM:
        """The cipher by scrypt; ValueError where the parameters are not scrypt's or out of bounds.

        KeystoreError where the passphrase, as it came out of the environment, is not text.
        """
        if any("\ud800" <= character <= "\udfff" for character in self._text):
            raise KeystoreError("the passphrase is not UTF-8", advice="Write it in a UTF-8 locale.")
        if kdf.keys() != {"name", "salt", "n", "r", "p"} or kdf["name"] != "scrypt":
            raise ValueError
        n, r, p = (_whole(kdf[name]) for name in "nrp")
        if n not in _SCRYPT_N or n & (n - 1) or r not in _SCRYPT_R or p not in _SCRYPT_P:
            raise ValueError
        if 128 * n * r > _SCRYPT_MEMORY or n * r * p > _SCRYPT_WORK:
            raise ValueError
        stretch = Scrypt(salt=_salt(kdf), length=_KEY_LENGTH, n=n, r=r, p=p)
        # The same passphrase typed on two keyboards may be composed differently.
        return AESGCM(stretch.derive(unicodedata.normalize("NFC", self._text).encode()))


class CredentialFile(Masked):
    """A file of 32 bytes to 64 KiB of high entropy, used as it is (a line end at its end counts).

    For an unattended kiosk: systemd's ``LoadCredentialEncrypted=`` puts it into ``$CREDENTIALS_DIRECTORY``.
    The file must be ours or root's, and readable by nobody else. Within ``credentials_directory`` (by default what
    the variable says) group-readable is accepted: there systemd lets a service's user in by an access control
    list, whose mask shows in the place of the group's bits.
    """

    __slots__ = ("_directory", "_path")

    def __init__(self, path: Path | str, *, credentials_directory: Path | str | None = None) -> None:
        directory = credentials_directory or os.environ.get("CREDENTIALS_DIRECTORY")
        self._path = Path(path)
        self._directory = Path(directory) if directory else None

    def new_kdf(self, random: Random) -> dict[str, Any]:
        """HKDF-SHA256 with a new salt (RFC 5869)."""
        return {"name": "hkdf-sha256", "salt": random(_SALT_LENGTH).hex()}

    def cipher(self, kdf: Mapping[str, Any]) -> AESGCM:
        """The cipher by HKDF; ValueError where the parameters are not HKDF's. Raises KeystoreError for the file."""
        if kdf.keys() != {"name", "salt"} or kdf["name"] != "hkdf-sha256":
            raise ValueError
        derive = HKDF(SHA256(), length=_KEY_LENGTH, salt=_salt(kdf), info=_INFO)
        return AESGCM(derive.derive(self._read()))

    def _read(self) -> bytes:
        try:
            # Not to be held up by a FIFO in the file's place.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as problem:
            raise vault_file.unreadable(self._path, problem) from None
        with open(descriptor, "rb") as file:
            self._refuse_exposed(os.fstat(descriptor))
            try:
                data = file.read(_CREDENTIAL_LENGTH.stop)
            except OSError as problem:
                raise vault_file.unreadable(self._path, problem) from None
        if len(data) not in _CREDENTIAL_LENGTH:
            del data
            raise KeystoreError(f"{self._path}: a credential has 32 bytes to 64 KiB")
        return data

    def _refuse_exposed(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise KeystoreError(f"{self._path}: a credential must be a regular file")
        allowed = 0o740 if self._in_credentials_directory() else 0o700
        if stat.S_IMODE(status.st_mode) & ~allowed or status.st_uid not in (0, os.geteuid()):
            raise KeystoreError(
                f"{self._path}: others can read or replace this credential",
                advice=f"Give it to the terminal's user and run `chmod 400 {self._path}`.",
            )

    def _in_credentials_directory(self) -> bool:
        return self._directory is not None and self._directory.resolve() in self._path.resolve().parents


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError
    return value


def _salt(kdf: Mapping[str, Any]) -> bytes:
    salt = bytes.fromhex(kdf["salt"])
    if len(salt) != _SALT_LENGTH:
        raise ValueError
    return salt


class Records(Masked, dict[str, bytes]):
    """The secret records by name; shows the names alone."""

    def __repr__(self) -> str:
        return f"Records({sorted(self)})"


@dataclass
class Draft:
    """What the vault will hold when its ``change`` ends well; edit the two dicts."""

    records: Records
    facts: dict[str, str] = field(default_factory=dict)


class Vault(Masked):
    """Named secret records and public facts, sealed in one file. Not for use from several threads at once.

    ``random`` gives a new 12-byte nonce for each write, and so must never repeat itself under one key.
    """

    def __init__(
        self,
        path: Path,
        lock: int,
        cipher: AESGCM,
        kdf: Mapping[str, Any],
        random: Random,
        records: Records,
        facts: dict[str, str],
        disk: Disk,
    ) -> None:
        self._disk = disk
        self._path, self._lock, self._cipher, self._kdf = path, lock, cipher, kdf
        self._random, self._records, self._facts = random, records, facts
        self._changing = False

    read_facts = staticmethod(vault_file.read_facts)

    @classmethod
    def create(
        cls,
        path: Path | str,
        secret: Secret,
        *,
        random: Random,
        facts: Mapping[str, str] | None = None,
        records: Records | None = None,
        disk: Disk = REAL,
    ) -> Vault:
        """Write a new vault in one step, and open it. Raises KeystoreError, also where a file is there."""
        path = Path(path)
        with _locked(path) as lock:
            vault_file.tidy(path)
            if os.path.lexists(path):
                raise KeystoreError(f"there is a keystore at {path} already")
            kdf = secret.new_kdf(random)
            try:
                cipher = secret.cipher(kdf)
            except ValueError:
                raise KeystoreError("scrypt: n must be a power of two from 2**10 to 2**20") from None
            vault = cls(path, lock, cipher, kdf, random, Records(), {}, disk)
            vault._write(Draft(Records(records or {}), dict(facts or {})))
            return vault

    @classmethod
    def open(cls, path: Path | str, secret: Secret, *, random: Random, disk: Disk = REAL) -> Vault:
        """Open the vault and hold it. Raises KeystoreError: missing, in use, wrong secret, damaged, too new."""
        path = Path(path)
        if not os.path.lexists(path):
            vault_file.read(path)  # which says that it is missing, before a lock file is left in its place
        with _locked(path) as lock:
            vault_file.tidy(path)
            document = vault_file.read(path)
            cipher = _cipher(path, secret, document.kdf)
            records = _unseal(path, cipher, document)
            return cls(path, lock, cipher, document.kdf, random, records, dict(document.facts), disk)

    def __repr__(self) -> str:
        return f"Vault({str(self._path)!r}, {'closed' if self.closed else 'open'})"

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called: then nothing else may be."""
        return self._lock < 0

    @property
    def facts(self) -> Mapping[str, str]:
        """The public facts, authenticated when the vault was opened."""
        self._require_open()
        return MappingProxyType(self._facts)

    def get(self, name: str) -> bytes | None:
        """The record of that name, or None."""
        self._require_open()
        return self._records.get(name)

    @contextlib.contextmanager
    def change(self) -> Iterator[Draft]:
        """Give a draft to edit; when the block ends, write and adopt it whole, or, on an exception, nothing.

        Raises KeystoreError: read-only, full disk. After ``vault_file.Unconfirmed`` (the new file is in place, and
        the disk did not confirm it) the vault holds what the file holds: the new.
        """
        self._require_open()
        if self._changing:
            raise KeystoreError("the keystore is being changed already")
        self._changing = True
        try:
            draft = Draft(Records(self._records), dict(self._facts))
            yield draft
            self._require_open()
            if draft.records != self._records or draft.facts != self._facts:
                self._write(draft)
        finally:
            self._changing = False

    def close(self) -> None:
        """Forget the records and let go of the lock; a second time does nothing."""
        if not self.closed:
            os.close(self._lock)
            self._lock = -1
            self._records = Records()
            del self._cipher

    def _write(self, draft: Draft) -> None:
        if not all(isinstance(value, str) for value in draft.facts.values()):
            raise TypeError("a fact is text")
        if not all(isinstance(value, bytes) for value in draft.records.values()):
            raise TypeError("a record is bytes")
        nonce = self._random(vault_file.NONCE_LENGTH)
        sealed = self._cipher.encrypt(
            nonce, msgspec.msgpack.encode(dict(draft.records)), vault_file.associated(self._kdf, draft.facts)
        )
        document = vault_file.Document(self._kdf, draft.facts, nonce, sealed)
        try:
            vault_file.replace(self._path, document.encode(), self._disk)
        except vault_file.Unconfirmed:
            self._adopt(draft)
            raise
        self._adopt(draft)

    def _adopt(self, draft: Draft) -> None:
        self._records, self._facts = Records(draft.records), dict(draft.facts)

    def _require_open(self) -> None:
        if self.closed:
            raise KeystoreError("the keystore is closed")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The lock, let go again where opening fails."""
    lock = vault_file.lock(path)
    try:
        yield lock
    except BaseException:
        os.close(lock)
        raise


def _cipher(path: Path, secret: Secret, kdf: Mapping[str, Any]) -> AESGCM:
    try:
        return secret.cipher(kdf)
    except MemoryError:
        raise KeystoreError(f"{path} needs more memory to open than there is") from None
    except (ValueError, TypeError):
        raise KeystoreError(
            f"{path} is damaged, or was made with the other kind of secret (a passphrase or a credential file)"
        ) from None


def _unseal(path: Path, cipher: AESGCM, document: vault_file.Document) -> Records:
    public = vault_file.associated(document.kdf, document.facts)
    try:
        return Records(_record_map.decode(cipher.decrypt(document.nonce, document.sealed, public)))
    except InvalidTag:
        typed = document.kdf.get("name") == "scrypt"
        again = "Try the passphrase again" if typed else "Give the credentials file with which it was provisioned"
        raise KeystoreError(
            f"{path} does not open: the passphrase or credential is another, or the file is damaged",
            advice=f"{again}; if it is the right one, restore {path.name} from a copy.",
        ) from None
    except msgspec.MsgspecError:
        raise vault_file.damaged(path) from None
