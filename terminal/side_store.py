"""The side store: sealed requests under keys that can be destroyed.

A request is kept until the outcome of its payment is known, and no longer. What SQLite once wrote may lie on in
its WAL and in free pages, so that what it is given is sealed once more (AES-256-GCM), under a random key of that
request alone. The keys lie beside the journal in a file of slots, 32 bytes each, made ahead and synchronised, so
that to use one costs nothing; a key seals once. To destroy a request, its slot is overwritten in place. That may
wait in the system's cache: until it is synchronised the slot is not used again, and at every opening each slot that
no open payment uses is overwritten and synchronised. (What a flash memory keeps of overwritten blocks is beyond a
program.)
"""

from __future__ import annotations

import hashlib
import re
from binascii import hexlify, unhexlify
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from terminal.clock import Random
from terminal.disk import Disk
from terminal.journal_chain import Mark, SealedRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SLOT: Final = 32
"""Bytes of a key."""
SLOTS: Final = 128
"""Keys in a new file, and by how many it grows when open payments use most of them."""
_BLOCK: Final = 256
"""Sealed bytes come in multiples of this, so that SQLite can overwrite those of an earlier request in place."""
_HEX: Final = re.compile(rb"(?:[0-9A-F]{2}){16,}")
_NONCE: Final = bytes(12)  # a key seals once
_TAG: Final = 16


class SyncFailed(OSError):
    """What was written may or may not be on the disk."""


class Slots:
    """The keys, in one file. Every method but ``destroy`` raises OSError where the disk fails."""

    def __init__(self, path: Path, disk: Disk, random: Random) -> None:
        self.path, self._disk, self._random = path, disk, random
        self._keys = bytearray()
        self._ready: list[int] = []
        self._spent: list[int] = []
        self._exposed: list[int] = []
        self._made: tuple[int, AESGCM] | None = None

    @property
    def ready(self) -> int:
        """How many keys can be used without a synchronisation."""
        return len(self._ready)

    def open(self, used: Collection[int]) -> None:
        """Read the keys, and make new each that is not among those ``used``; makes a file that is not there."""
        try:
            self._keys = bytearray(self._disk.read(self.path))
        except FileNotFoundError:
            self._keys = bytearray(self._random(SLOT * SLOTS))
            self._disk.replace(self.path, bytes(self._keys))
            self._ready = [slot for slot in range(SLOTS)[::-1] if slot not in used]
            return
        count = -(-len(self._keys) // SLOT)
        self._exposed = [slot for slot in range(count) if slot not in used]
        self.settle()

    def take(self) -> tuple[int, AESGCM]:
        """A slot and its key, durable and never used before; it is not given again until it is destroyed."""
        if not self._ready:
            self.settle()
        slot, made, self._made = self._ready.pop(), self._made, None
        return slot, made[1] if made is not None and made[0] == slot else _cipher(self.key(slot))

    def prepare(self) -> None:
        """Have the cipher of the next key made; call it between payments."""
        slot = self._ready[-1] if self._ready else None
        if slot is not None and (self._made is None or self._made[0] != slot):
            self._made = slot, _cipher(self.key(slot))

    def key(self, slot: int) -> bytes:
        """The key in a slot; short or empty where there is none."""
        return bytes(self._keys[slot * SLOT : (slot + 1) * SLOT])

    def destroy(self, slot: int) -> None:
        """Overwrite a key. Where the disk refuses, it is tried again when the slots are settled."""
        self._exposed.append(slot)
        try:
            self._overwrite()
        except OSError:
            return

    def settle(self) -> None:
        """Make every destruction durable, and have keys for what comes; call it between payments."""
        self._overwrite()
        if len(self._ready) + len(self._spent) < SLOTS // 2:
            count = len(self._keys) // SLOT
            made = self._random(SLOT * SLOTS)
            self._disk.write(self.path, count * SLOT, made)
            self._keys[count * SLOT :] = made
            self._spent += range(count, count + SLOTS)
        if self._spent:
            try:
                self._disk.sync(self.path)
            except OSError as error:
                raise SyncFailed(error.errno, error.strerror) from None
            self._ready = sorted({*self._ready, *self._spent}, reverse=True)
            self._spent = []

    def _overwrite(self) -> None:
        """Slots that lie side by side in one write."""
        left = sorted(self._exposed)
        while left:
            run = 1
            while run < len(left) and left[run] == left[0] + run:
                run += 1
            start, made = left[0] * SLOT, self._random(SLOT * run)
            self._disk.write(self.path, start, made)
            self._keys[start : start + len(made)] = made
            self._spent += left[:run]
            left = left[run:]
            self._exposed = left
        self._exposed = []


def sealed(key: AESGCM, payment_id: str, request: SealedRequest) -> bytes:
    """A request as the side store keeps it: packed, filled up, sealed for that payment."""
    plain = _joined([request.key_set_id.encode(), *_packed(request.body)])
    filled = len(plain).to_bytes(4, "big") + plain
    return key.encrypt(_NONCE, filled + bytes(-(len(filled) + _TAG) % _BLOCK), payment_id.encode())


def opened(key: bytes, payment_id: str, mark: Mark, kept: bytes) -> SealedRequest | None:
    """The request again; None where the key is gone, or where it is not the one that the chain names."""
    from cryptography.exceptions import InvalidTag

    if len(key) != SLOT:
        return None
    try:
        filled = _cipher(key).decrypt(_NONCE, kept, payment_id.encode())
    except InvalidTag:
        return None
    name, *packed = _parted(filled[4 : 4 + int.from_bytes(filled[:4], "big")])
    body = b"".join(hexlify(part).upper() if at % 2 else part for at, part in enumerate(packed))
    if digest(body) != mark.sha256:
        return None
    return SealedRequest(name.decode(), body)


def _packed(body: bytes) -> list[bytes]:
    """Text and bytes in turn: envelopes are little but hex digits, which stand for half as many bytes."""
    parts, end = [], 0
    for run in _HEX.finditer(body):
        parts += [body[end : run.start()], unhexlify(run[0])]
        end = run.end()
    return [*parts, body[end:]]


def _joined(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _parted(joined: bytes) -> list[bytes]:
    parts = []
    while joined:
        end = 4 + int.from_bytes(joined[:4], "big")
        parts.append(joined[4:end])
        joined = joined[end:]
    return parts


def digest(body: bytes) -> str:
    """What the chain holds of a request: SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
