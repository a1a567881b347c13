"""The host's hardware security module, in software: it makes keys, and seals all that it keeps.

A master key in a file of its own (0600) seals secrets with AES-256-GCM before they go into the ledger, each bound
to the name under which it is kept. Whoever copies the ledger alone has no key.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sim.seed import pick
from terminal.clock import Random
from terminal.crypto.kcv import aes_kcv, hmac_kcv
from terminal.crypto.keyblock import wrap
from terminal.crypto.keyblock_header import Header, OptionalBlock

MASTER_KEY_FILE = "host-master.key"
_KEY = 32
_GCM_NONCE = 12
_LOWER = "0123456789abcdef"
_KEPT_OPEN = 4096  # key sets held in memory between requests
_LONGEST_KCV = 5

_SHA_256 = OptionalBlock("HM", "21")


@dataclass(frozen=True, slots=True)
class _Made:
    """How a key is made: what wraps it, its header (ANSI X9.143 tables 2 to 4), the prose beside it."""

    under: str
    usage: str
    algorithm: str
    mode: str
    prose: str
    blocks: tuple[OptionalBlock, ...] = ()


KEYS: dict[str, _Made] = {
    "tmk": _Made("zmk", "K1", "A", "D", "terminal master key"),
    "kek": _Made("tmk", "K1", "A", "D", "key encryption key"),
    "msk": _Made("kek", "D0", "A", "B", "payload encryption"),
    "tpk": _Made("kek", "P0", "A", "E", "PIN encryption"),
    "tdk": _Made("kek", "D0", "A", "E", "card data encryption"),
    "mac": _Made("kek", "M7", "H", "G", "request authentication", (_SHA_256,)),
}
"""The hierarchy, in the order in which a terminal unwraps it."""


class HsmError(Exception):
    """The master key is missing or damaged, or does not open what the ledger holds."""


@dataclass(frozen=True, slots=True)
class DeviceSecrets:
    """What a device and its host share from the factory."""

    identity: bytes = field(repr=False)
    zmk: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LiveKeys:
    """An opened key set. KCVs have 5 bytes."""

    key_set_id: str
    msk: bytes = field(repr=False)
    tpk: bytes = field(repr=False)
    tdk: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    msk_kcv: str
    tpk_kcv: str
    tdk_kcv: str


@dataclass(frozen=True, slots=True)
class MadeKeySet:
    """A new key set: ``keys`` as ``POST /pos/keys`` answers them, ``sealed`` as the ledger keeps them."""

    mac_key_id: str
    keys: dict[str, dict[str, str]] = field(repr=False)
    sealed: bytes = field(repr=False)


class Hsm:
    """Seals, opens and makes keys under one master key of 32 bytes."""

    def __init__(self, master_key: bytes, random: Random) -> None:
        self._gcm = AESGCM(master_key)
        self._random = random
        self._open: OrderedDict[str, LiveKeys] = OrderedDict()

    def seal(self, name: str, secret: bytes) -> bytes:
        """The secret as it may be written down under that name."""
        nonce = self._random(_GCM_NONCE)
        return nonce + self._gcm.encrypt(nonce, secret, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """The secret; HsmError where this master key did not seal it under that name."""
        try:
            return self._gcm.decrypt(sealed[:_GCM_NONCE], sealed[_GCM_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            raise HsmError(f"what is kept as {name!r} was not sealed under this master key") from None

    def make_device(self, device_id: str) -> tuple[DeviceSecrets, bytes]:
        """An identity secret and a ZMK, open and sealed."""
        secrets = DeviceSecrets(self._random(_KEY), self._random(_KEY))
        return secrets, self.seal(f"device {device_id}", secrets.identity + secrets.zmk)

    def open_device(self, device_id: str, sealed: bytes) -> DeviceSecrets:
        """A device's secrets; HsmError."""
        both = self.open(f"device {device_id}", sealed)
        return DeviceSecrets(both[:_KEY], both[_KEY:])

    def make_key_set(self, key_set_id: str, zmk: bytes) -> MadeKeySet:
        """Six keys of 32 bytes, each wrapped under the one above it (TR-31 version D), the first under the ZMK."""
        clear: dict[str, bytes] = {"zmk": zmk}
        answer: dict[str, dict[str, str]] = {}
        for role, made in KEYS.items():
            clear[role] = self._random(_KEY)
            header = Header("D", made.usage, made.algorithm, made.mode, blocks=made.blocks)
            block = wrap(clear[made.under], header, clear[role], self._random)
            answer[role] = {
                "key_id": f"{role}_{pick(self._random, _LOWER, 16)}",
                "key_block": base64.b64encode(block.encode("ascii")).decode(),
                "usage": made.prose,
                "kcv": hmac_kcv(clear[role]) if made.algorithm == "H" else aes_kcv(clear[role]),
            }
        used = {role: clear[role] for role in ("msk", "tpk", "tdk", "mac")}
        sealed = self.seal(f"key set {key_set_id}", msgspec.msgpack.encode(used))
        return MadeKeySet(answer["mac"]["key_id"], answer, sealed)

    def open_key_set(self, key_set_id: str, sealed: bytes) -> LiveKeys:
        """The working keys of a set, from memory where they were opened before; HsmError."""
        found = self._open.get(key_set_id)
        if found is None:
            keys = msgspec.msgpack.decode(self.open(f"key set {key_set_id}", sealed), type=dict[str, bytes])
            kcvs = [aes_kcv(keys[role], _LONGEST_KCV) for role in ("msk", "tpk", "tdk")]
            found = LiveKeys(key_set_id, keys["msk"], keys["tpk"], keys["tdk"], keys["mac"], *kcvs)
            self._open[key_set_id] = found
            if len(self._open) > _KEPT_OPEN:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(key_set_id)
        return found


def load_master_key(directory: Path, random: Random) -> bytes:
    """The host's master key from its file in ``directory``, made there at the first start.

    Raises HsmError where the file is not one, or can be read by others.
    """
    path = directory / MASTER_KEY_FILE
    try:
        if path.stat().st_mode & 0o077:
            raise HsmError(f"{path} can be read by others: chmod 600 it, or start with another data directory")
        key = path.read_bytes()
    except FileNotFoundError:
        return _make_master_key(path, random)
    if len(key) != _KEY:
        raise HsmError(f"{path} does not hold a key of {_KEY} bytes")
    return key


def _make_master_key(path: Path, random: Random) -> bytes:
    key = random(_KEY)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".host-master-")
    with os.fdopen(descriptor, "wb") as file:  # mkstemp makes it 0600
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return key
