"""The vault's file: its shape, its lock, and the one way in which it is replaced. No key comes near this module.

It imports nothing outside the standard library, so that what asks only for the facts starts quickly.

    {"format": "tillwright-vault", "version": 1,
     "kdf": {...},                    how the key is made of the passphrase or the credential
     "facts": {name: text, ...},      public; authenticated with the rest
     "nonce": hex, "sealed": base64}  AES-256-GCM of the records
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from terminal import disk as disk_file
from terminal.disk import Disk
from terminal.errors import KeystoreError

FILE_NAME: Final = "vault"
FORMAT: Final = "tillwright-vault"
VERSION: Final = 1
MAX_FILE: Final = 64 * 1024 * 1024
"""Bytes of the file: the records hold a key set and terminal parameters, a megabyte at the very most."""
NONCE_LENGTH: Final = 12

_FIELDS: Final = {"format", "version", "kdf", "facts", "nonce", "sealed"}
_PRIVATE: Final = 0o600
_PID_LENGTH: Final = 20
_WHY: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not",
    errno.EPERM: "this user may not",
    errno.ENOENT: "there is no such file or directory",
    errno.EIO: "the disk reports an error",
}
_ADVICE: Final = {
    errno.ENOSPC: "Make room on the disk, then try again.",
    errno.EDQUOT: "Make room on the disk, then try again.",
    errno.EROFS: "Mount the file system for writing, then try again.",
    errno.EACCES: "Check who owns the directory and the file.",
    errno.EPERM: "Check who owns the directory and the file.",
    errno.EIO: "Replace the disk: it may be failing.",
}


@dataclass(frozen=True)
class Document:
    """The file, parsed: ``kdf`` and ``facts`` as they are written, ``nonce`` and ``sealed`` as bytes."""

    kdf: Mapping[str, Any]
    facts: Mapping[str, str]
    nonce: bytes = field(repr=False)
    sealed: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The bytes of the file."""
        head = json.dumps({**_public(self.kdf, self.facts), "nonce": self.nonce.hex()}, indent=1).encode()
        # Nearly all of the file, and base64 has nothing that JSON would escape.
        return head.removesuffix(b"\n}") + b',\n "sealed": "' + b64encode(self.sealed) + b'"\n}\n'


def associated(kdf: Mapping[str, Any], facts: Mapping[str, str]) -> bytes:
    """Everything public in the file, spelt in one way only: what the seal authenticates besides the records."""
    return json.dumps(_public(kdf, facts), sort_keys=True, separators=(",", ":")).encode()


def _public(kdf: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "kdf": dict(kdf), "facts": dict(facts)}


def read_facts(path: Path | str) -> dict[str, str]:
    """The public facts, without the secret and so not yet authenticated. Raises KeystoreError."""
    return dict(read(Path(path)).facts)


def read(path: Path) -> Document:
    """Read and parse the file. Raises KeystoreError where it is missing, damaged or of a newer version."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise KeystoreError(f"there is no keystore at {path}", advice="Run `till provision` first.") from None
    except OSError as problem:
        raise unreadable(path, problem) from None
    return parse(path, data)


def parse(path: Path, data: bytes) -> Document:
    """Parse the bytes of the file; ``path`` is for the error's message only. Raises KeystoreError."""
    try:
        if len(data) > MAX_FILE:
            raise ValueError
        document = json.loads(data)
        if document["format"] != FORMAT or type(document["version"]) is not int:
            raise ValueError
        if document["version"] > VERSION:
            raise KeystoreError(
                f"{path} was written by a newer version (format {document['version']}; this program knows 1)",
                advice="Update this program.",
            )
        if document.keys() != _FIELDS or document["version"] != VERSION:
            raise ValueError
        kdf, facts = document["kdf"], document["facts"]
        if not isinstance(kdf, dict) or not isinstance(facts, dict):
            raise ValueError
        if not all(isinstance(value, str) for value in facts.values()):
            raise ValueError
        nonce = bytes.fromhex(document["nonce"])
        sealed = b64decode(document["sealed"], validate=True)
        if len(nonce) != NONCE_LENGTH:
            raise ValueError
        associated(kdf, facts)
    except (ValueError, TypeError, LookupError, RecursionError):
        raise damaged(path) from None
    return Document(kdf, facts, nonce, sealed)


def damaged(path: Path) -> KeystoreError:
    """The error for a file that is not what we wrote."""
    return KeystoreError(f"{path} is damaged", advice="Restore it from a copy, or provision the terminal again.")


def unreadable(path: Path, problem: OSError) -> KeystoreError:
    """The error for a file that the system does not let us read."""
    return _failed(path, "cannot be read", problem)


def _failed(path: Path, what: str, problem: OSError) -> KeystoreError:
    number = problem.errno or 0
    why = _WHY.get(number, os.strerror(number) if number else "no reason given")
    return KeystoreError(f"{path} {what}: {why}", advice=_ADVICE.get(number, "Check the disk, then try again."))


# --- one writer ---------------------------------------------------------------------------------------------


def lock(path: Path) -> int:
    """Take the advisory lock beside the file; give back the descriptor that holds it until it is closed.

    The lock file stays behind: to remove it would let two processes lock two files of one name. The process id in
    it is for people; the lock itself is the system's, and goes with the process that held it, however it ended.
    Raises KeystoreError where another process has it, or where it cannot be made.
    """
    try:
        descriptor = os.open(_beside(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE)
    except OSError as problem:
        raise _failed(path, "cannot be locked", problem) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, _PID_LENGTH, 0).decode("ascii", "replace")
        os.close(descriptor)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise KeystoreError(
            f"{path} is in use by {who}", advice="Wait until it ends, or stop it, then try again."
        ) from None
    except OSError as problem:
        os.close(descriptor)
        raise _failed(path, "cannot be locked", problem) from None
    with contextlib.suppress(OSError):  # a full disk is no reason to stay shut
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
    return descriptor


def tidy(path: Path) -> None:
    """Remove what a crash in the middle of a write left behind, and close the file to others.

    Only while the lock is held. Raises KeystoreError.
    """
    try:
        _beside(path, ".new").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(path.stat().st_mode) & ~_PRIVATE:
                path.chmod(_PRIVATE)
    except OSError as problem:
        raise _failed(path, "cannot be opened for writing", problem) from None


def replace(path: Path, data: bytes, disk: Disk) -> None:
    """Write the whole file in one step: at every moment the old one or the new one is there, entire.

    Only while the lock is held. Raises KeystoreError and leaves the old file; Unconfirmed where the new file is in
    its place and the last flush failed.
    """
    if len(data) > MAX_FILE:
        raise KeystoreError(f"{path} would be larger than {MAX_FILE} bytes")
    try:
        disk.replace(path, data)
    except disk_file.Unconfirmed as problem:
        raise Unconfirmed(str(_failed(path, "was written and not confirmed", problem))) from None
    except OSError as problem:
        raise _failed(path, "cannot be written", problem) from None


class Unconfirmed(KeystoreError):
    """The new file is in place, but a power cut might still bring the old one back."""

    advice = "Check the disk: it may be failing."


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
