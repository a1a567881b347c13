"""The terminal's keys: the only place in the program where key bytes are used.

A key goes in, out of a ceremony or a key block, and never comes out again: what the rest of the program asks for
is to seal, to open, to sign and to make PIN blocks. Each use is checked against the key's role and its mode of use
(``terminal.crypto.policy``). The keys rest in the vault: the ZMK, which was entered by hand; the identity secret,
which came with the device; and the key sets (``terminal.crypto.key_set``). A key set stays beside its successor
until it expires, to open and sign again what was begun under it.
"""

from __future__ import annotations

import codecs
from binascii import hexlify
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec

from terminal.clock import Random
from terminal.crypto import envelope, policy, signature
from terminal.crypto.ceremony import ZMK_LENGTH
from terminal.crypto.kcv import aes_kcv, hmac_kcv, kcv_matches
from terminal.crypto.key_set import (
    FULL_KCV,
    PARENTS,
    KeyBytes,
    KeyFacts,
    StoredKey,
    StoredSet,
    StoredSets,
    WrappedKey,
    WrappedKeySet,
    is_name,
    unwrap_key_set,
)
from terminal.crypto.keyblock_header import Tolerance
from terminal.crypto.masked import Masked
from terminal.crypto.pinblock import iso4_pin_block
from terminal.crypto.policy import Operation, Role, Tolerated
from terminal.crypto.vault import Draft, Vault
from terminal.errors import CardDataError, EnvelopeError, KeystoreError

__all__ = ["PARENTS", "KeyFacts", "Keystore", "Role", "WrappedKey", "WrappedKeySet"]

IDENTITY_RECORD: Final = "identity"
ZMK_RECORD: Final = "zmk"
KEY_SETS_RECORD: Final = "key_sets"
PAN_KEY_RECORD: Final = "pan_key"

_IDENTITY_LENGTH: Final = range(16, 257)
_ACTIVATE: Final = "Run `till activate`."
_PROVISION: Final = "Run `till provision`."


_Record = TypeVar("_Record", StoredKey, StoredSets)


class Keystore(Masked):
    """Seals, opens, signs and makes PIN blocks with the keys in a vault.

    ``tolerated`` and ``tolerances`` say what a host's keys and key blocks may be besides what they should be.
    What changes keys takes the vault's draft, so that the caller can write its own record with them in one step.
    Without keys, each use raises KeystoreError.
    """

    def __init__(
        self,
        vault: Vault,
        random: Random,
        *,
        tolerated: Tolerated = policy.DEFAULT,
        tolerances: Tolerance = Tolerance.STRICT,
    ) -> None:
        self._vault, self._random = vault, random
        self._tolerated, self._tolerances = tolerated, tolerances
        self._read: dict[str, tuple[bytes, StoredKey | StoredSets]] = {}

    # - what is known

    @property
    def device_id(self) -> str:
        """``POS-8F3A2C91``. KeystoreError where no device was provisioned."""
        return self._fact("device_id")

    @property
    def terminal_id(self) -> str:
        """``TID-004812``. KeystoreError where no device was provisioned."""
        return self._fact("terminal_id")

    @property
    def identity_key_id(self) -> str:
        """The ``X-Key-Id`` of an attestation."""
        return self._identity().key_id

    @property
    def key_set_id(self) -> str | None:
        """The key set in use, or None."""
        current = self._sets().current
        return current.key_set_id if current else None

    @property
    def key_set_expires_at(self) -> datetime | None:
        """When the key set in use expires (aware, UTC), or None where there is none."""
        current = self._sets().current
        return current.expires_at if current else None

    @property
    def key_set_issued_at(self) -> datetime | None:
        """When the host made the key set in use (aware, UTC), or None where there is none."""
        current = self._sets().current
        return current.issued_at if current else None

    def renew_at(self, before: timedelta) -> datetime | None:
        """When the key set in use is to be renewed: that long before its end, at most half of its life."""
        current = self._sets().current
        if current is None:
            return None
        return current.expires_at - min(before, (current.expires_at - current.issued_at) / 2)

    def holds(self, key_set_id: str) -> bool:
        """Whether that key set can still be used: it is the current or the previous one."""
        return any(each.key_set_id == key_set_id for each in self._sets())

    def holds_expired(self, now: datetime) -> bool:
        """Whether the previous key set is still here after its end."""
        previous = self._sets().previous
        return previous is not None and previous.expires_at <= now

    def mac_key_id(self, key_set_id: str | None = None) -> str:
        """The ``X-Key-Id`` of a request signed under that key set, by default the current one."""
        return self._key(Role.MAC, key_set_id).key_id

    def facts(self) -> list[KeyFacts]:
        """Every key that is held, by what may be known of it: ZMK, identity, then each key set, newest first."""
        by_hand = [self._record(name, StoredKey) for name in (ZMK_RECORD, IDENTITY_RECORD)]
        facts = [key.facts() for key in by_hand if key is not None]
        for each in self._sets():
            facts += [each.keys[role].facts(each.key_set_id) for role in PARENTS]
        return facts

    # - what keys do

    def seal(self, plaintext: bytes, key_set_id: str | None = None) -> bytes:
        """The exact bytes of a request: an envelope under the MSK."""
        msk = self._key(Role.MSK, key_set_id)
        return envelope.encode(envelope.seal(msk.use(Operation.ENCRYPT), plaintext, self._random))

    def open(self, body: bytes, *, limit: int, key_set_id: str | None = None) -> bytes:
        """At most ``limit`` bytes of plaintext out of an envelope under an MSK. Raises EnvelopeError.

        The key set is the one that is named, and otherwise the one that the envelope's KCV names; where it has
        none, the current one and then the previous one are tried, and what opens has to be UTF-8: a wrong key
        gives noise once in 256 times.
        """
        sets = [self._set(key_set_id)] if key_set_id is not None else list(self._sets())
        if not sets:
            raise _no_keys()
        try:
            parsed: envelope.Envelope | None = envelope.parse(body)
        except EnvelopeError:
            parsed = None
        if parsed is not None:
            for each in sets:
                plaintext = _open(each.keys[Role.MSK], parsed, limit)
                if plaintext is not None:
                    return plaintext
        # Outside of any handler: an error that carries no frame in which a key was.
        raise EnvelopeError

    def seal_card(self, data: bytes, key_set_id: str | None = None) -> dict[str, str]:
        """Card data under the TDK, as an envelope that names its key: for use inside a payload."""
        tdk = self._key(Role.TDK, key_set_id)
        return envelope.seal(tdk.use(Operation.ENCRYPT), data, self._random, kcv=tdk.shown_kcv)

    def pin_block(self, pin: str, pan: str, key_set_id: str | None = None) -> dict[str, str]:
        """A PIN block under the TPK: ``{"format": "ISO-4", "block": hex, "key_kcv": hex}``. CardDataError."""
        tpk = self._key(Role.TPK, key_set_id)
        try:
            block = iso4_pin_block(tpk.use(Operation.PIN), pin, pan, self._random)
        except CardDataError as problem:
            refused = str(problem)
        else:
            return {"format": "ISO-4", "block": hexlify(block).decode().upper(), "key_kcv": tpk.shown_kcv}
        raise CardDataError(refused)

    def card_hash(self, pan: str) -> str:
        """By what a PAN is known again: HMAC-SHA256 under a random key that only this vault has, 16 bytes in hex.

        The key is made, and written, when it is first needed.
        """
        if self._vault.get(PAN_KEY_RECORD) is None:
            with self._vault.change() as draft:
                draft.records[PAN_KEY_RECORD] = self._random(32)
        key = self._vault.get(PAN_KEY_RECORD)
        assert key is not None
        return signature.hmac_sha256(key, pan.encode("ascii"))[:16].hex()

    def sign_attestation(self, message: bytes) -> bytes:
        """HMAC-SHA256 under the device's identity secret, 32 bytes."""
        return signature.hmac_sha256(self._identity().use(Operation.SIGN), message)

    def sign_request(self, message: bytes, key_set_id: str | None = None) -> bytes:
        """HMAC-SHA256 under the MAC key, 32 bytes."""
        return signature.hmac_sha256(self._key(Role.MAC, key_set_id).use(Operation.SIGN), message)

    # - how keys come and go

    @staticmethod
    def provision(
        draft: Draft,
        *,
        device_id: str,
        terminal_id: str,
        identity_key_id: str,
        identity_secret: bytes,
        zmk: bytes | None = None,
        zmk_kcv: str | None = None,
    ) -> None:
        """Make this the draft of a device's keystore; what was there of another one is gone.

        ``identity_secret`` has 16 to 256 bytes. The ZMK comes with it, from a simulator, or later by ``set_zmk``.
        Raises KeystoreError and leaves the draft as it was.
        """
        secret, zone = KeyBytes(identity_secret), KeyBytes(zmk or b"")
        del identity_secret, zmk
        for name, value in (("device id", device_id), ("terminal id", terminal_id), ("key id", identity_key_id)):
            if not is_name(value):
                raise KeystoreError(f"the {name} is empty, too long, or not printable ASCII")
        if len(secret.value) not in _IDENTITY_LENGTH:
            raise KeystoreError("identity: the secret must have 16 to 256 bytes")
        identity = StoredKey(
            Role.IDENTITY, identity_key_id, hmac_kcv(secret.value, FULL_KCV), "M7", "H", "G", "", secret.value
        )
        zone_key = _zmk(zone, zmk_kcv) if zone.value or zmk_kcv is not None else None
        for name in (ZMK_RECORD, KEY_SETS_RECORD):
            draft.records.pop(name, None)
        draft.facts.update(device_id=device_id, terminal_id=terminal_id)
        _put(draft, IDENTITY_RECORD, identity)
        if zone_key is not None:
            _put(draft, ZMK_RECORD, zone_key)

    def set_zmk(self, draft: Draft, zmk: bytes, kcv: str) -> None:
        """Take the 32 bytes that a ceremony gave, and their KCV. Raises KeystoreError."""
        zone = KeyBytes(zmk)
        del zmk
        _put(draft, ZMK_RECORD, _zmk(zone, kcv))

    def install(
        self, draft: Draft, answer: WrappedKeySet, now: datetime, *, discard: frozenset[Role] = frozenset()
    ) -> str:
        """Unwrap and check a whole key set, and make it the current one; give back its id.

        The keys of the roles in ``discard`` are checked like the others and not kept.

        Raises KeyBlockError or KeyPolicyError, whose message begins with the role of the key at fault
        (``tpk: ...``), and KeystoreError where there is no ZMK; then the draft is as it was.
        """
        zmk = _decode(draft, ZMK_RECORD, StoredKey)
        if zmk is None:
            raise KeystoreError("there is no ZMK to unwrap keys with", advice=_PROVISION)
        by_hand = {Role.ZMK: zmk}
        identity = _decode(draft, IDENTITY_RECORD, StoredKey)
        if identity is not None:
            by_hand[Role.IDENTITY] = identity
        new = unwrap_key_set(answer, by_hand, now, self._tolerated, self._tolerances, discard)
        old = _decode(draft, KEY_SETS_RECORD, StoredSets) or StoredSets()
        last = (each for each in old if each.key_set_id != new.key_set_id and each.expires_at > now)
        _put(draft, KEY_SETS_RECORD, StoredSets(new, next(last, None)))
        return new.key_set_id

    def drop_superseded(self, draft: Draft, now: datetime) -> bool:
        """Drop the previous key set where it has expired; say whether it was dropped."""
        sets = _decode(draft, KEY_SETS_RECORD, StoredSets) or StoredSets()
        if sets.previous is None or sets.previous.expires_at > now:
            return False
        _put(draft, KEY_SETS_RECORD, StoredSets(sets.current))
        return True

    def forget_key_sets(self, draft: Draft) -> None:
        """Drop all key sets; the identity and the ZMK stay."""
        draft.records.pop(KEY_SETS_RECORD, None)

    # - reading the records

    def _identity(self) -> StoredKey:
        identity = self._record(IDENTITY_RECORD, StoredKey)
        if identity is None:
            raise KeystoreError("no device was provisioned", advice=_PROVISION)
        return identity

    def _sets(self) -> StoredSets:
        return self._record(KEY_SETS_RECORD, StoredSets) or StoredSets()

    def _set(self, key_set_id: str | None) -> StoredSet:
        for each in self._sets():
            if key_set_id is None or each.key_set_id == key_set_id:
                return each
        if key_set_id is None:
            raise _no_keys()
        raise KeystoreError(f"the key set {key_set_id!r} is not held any more", advice=_ACTIVATE)

    def _key(self, role: Role, key_set_id: str | None) -> StoredKey:
        return self._set(key_set_id).keys[role]

    def _fact(self, name: str) -> str:
        fact = self._vault.facts.get(name)
        if fact is None:
            raise KeystoreError("no device was provisioned", advice=_PROVISION)
        return fact

    def _record(self, name: str, kind: type[_Record]) -> _Record | None:
        """The record, decoded once for as long as the vault holds the same one."""
        record = self._vault.get(name)
        if record is None:
            return None
        seen = self._read.get(name)
        if seen is not None and seen[0] is record and isinstance(seen[1], kind):
            return seen[1]
        decoded = _decoded(name, record, kind)
        self._read[name] = (record, decoded)
        return decoded


def _open(msk: StoredKey, parsed: envelope.Envelope, limit: int) -> bytes | None:
    try:
        plaintext = envelope.open_envelope(msk.use(Operation.DECRYPT), parsed, limit=limit, kcv=msk.kcv)
        if parsed.key_kcv is None:
            codecs.getincrementaldecoder("utf-8")().decode(plaintext[:4096])
    except (EnvelopeError, UnicodeDecodeError):
        return None
    return plaintext


def _zmk(key: KeyBytes, kcv: str | None) -> StoredKey:
    if len(key.value) != ZMK_LENGTH:
        raise KeystoreError(f"zmk: it must have {ZMK_LENGTH} bytes")
    full = aes_kcv(key.value, FULL_KCV)
    if not kcv or not kcv_matches(kcv, full):
        raise KeystoreError("zmk: its check value is missing or does not match")
    return StoredKey(Role.ZMK, "", full, "K1", "A", "D", "", key.value)


def _put(draft: Draft, name: str, record: StoredKey | StoredSets) -> None:
    draft.records[name] = msgspec.msgpack.encode(record)


def _decode(draft: Draft, name: str, kind: type[_Record]) -> _Record | None:
    record = draft.records.get(name)
    return None if record is None else _decoded(name, record, kind)


def _decoded(name: str, record: bytes, kind: type[_Record]) -> _Record:
    try:
        return msgspec.msgpack.decode(record, type=kind)
    except msgspec.MsgspecError:
        raise KeystoreError(f"the record {name!r} was written by another version of this program") from None


def _no_keys() -> KeystoreError:
    return KeystoreError("no keys are installed", advice=_ACTIVATE)
