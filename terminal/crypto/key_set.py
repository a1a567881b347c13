"""A key set as it comes and as it is stored: every key unwrapped, checked and told from every other.

    zmk                      entered by hand, unwraps
     +- tmk                  unwraps
         +- kek              unwraps
             +- msk          seals and opens payloads
             +- tpk          makes PIN blocks
             +- tdk          seals card data
             +- mac          signs requests

The last four are kept. Of TMK and KEK, which a new key set replaces, only the blocks in which they came are.
For the keystore alone: the rest of the program has no business with what is stored here.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from terminal.crypto import policy
from terminal.crypto.kcv import kcv_matches
from terminal.crypto.keyblock import unwrap
from terminal.crypto.keyblock_header import Header, Tolerance
from terminal.crypto.masked import Masked
from terminal.crypto.policy import Operation, Role, Tolerated
from terminal.errors import KeyBlockError, KeyPolicyError, KeystoreError

PARENTS: Final[Mapping[Role, Role]] = {
    Role.TMK: Role.ZMK,
    Role.KEK: Role.TMK,
    Role.MSK: Role.KEK,
    Role.TPK: Role.KEK,
    Role.TDK: Role.KEK,
    Role.MAC: Role.KEK,
}
"""Which key unwraps which, in the order in which it is done: the keys of a key set."""

_KEPT: Final = frozenset({Role.MSK, Role.TPK, Role.TDK, Role.MAC})

FULL_KCV: Final = 5
"""Bytes: the longest check value that anybody may compare."""
_SHOWN: Final = 6  # hex digits of it that are shown and sent
_MAX_NAME: Final = 128
_ASK_AGAIN: Final = (
    "Nothing was installed. Ask for a new key set; if it happens again, the host's operator has to look."
)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What may be known of a key: ``kcv`` has 3 bytes of upper-case hex, ``usage`` to ``mode`` are X9.143's.

    ``key_set_id`` is None for the two that are in no key set, the ZMK and the identity secret.
    """

    role: Role
    key_id: str
    kcv: str
    usage: str
    algorithm: str
    mode: str
    key_set_id: str | None = None


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as it came: the TR-31 block in ASCII, its KCV (3 to 5 bytes of hex), and prose that decides nothing."""

    key_id: str
    key_block: str = field(repr=False)
    kcv: str | None
    usage: str = ""


@dataclass(frozen=True, slots=True)
class WrappedKeySet:
    """The answer to ``POST /pos/keys``, with a key for each role of ``PARENTS``; the moments are aware."""

    key_set_id: str
    issued_at: datetime
    expires_at: datetime
    keys: Mapping[Role, WrappedKey]


class KeyBytes(Masked):
    """Key bytes on their way in, so that they are in no frame's locals when something is refused."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value


class StoredKey(Masked, msgspec.Struct, frozen=True):
    """A key in its record. ``kcv`` is whole; ``value`` is empty for a key that is not kept."""

    role: Role
    key_id: str
    kcv: str
    usage: str
    algorithm: str
    mode: str
    key_block: str
    value: bytes

    def use(self, operation: Operation) -> bytes:
        """The bytes, for one use that role and mode allow. KeyPolicyError."""
        policy.require(self.role, self.mode, operation)
        if not self.value:
            raise KeystoreError(f"{self.role}: this key is not kept")
        return self.value

    def facts(self, key_set_id: str | None = None) -> KeyFacts:
        """What may be known of it."""
        return KeyFacts(self.role, self.key_id, self.shown_kcv, self.usage, self.algorithm, self.mode, key_set_id)

    @property
    def shown_kcv(self) -> str:
        """The 3 bytes of check value that are shown and sent."""
        return self.kcv[:_SHOWN]


class StoredSet(Masked, msgspec.Struct, frozen=True):
    """A key set in its record."""

    key_set_id: str
    issued_at: datetime
    expires_at: datetime
    keys: dict[Role, StoredKey]


class StoredSets(Masked, msgspec.Struct, frozen=True):
    """The key set in use and the one before, newest first."""

    current: StoredSet | None = None
    previous: StoredSet | None = None

    def __iter__(self) -> Iterator[StoredSet]:
        return (each for each in (self.current, self.previous) if each is not None)


class _Unwrapped(NamedTuple):
    header: Header
    key: KeyBytes


def unwrap_key_set(
    answer: WrappedKeySet,
    by_hand: Mapping[Role, StoredKey],
    now: datetime,
    tolerated: Tolerated,
    tolerances: Tolerance,
    discard: frozenset[Role] = frozenset(),
) -> StoredSet:
    """Unwrap a key set from the ZMK down, and check it: ids, headers, lengths, check values.

    The bytes of the roles in ``discard`` are not kept, nor their blocks.
    No key may have two roles, the ZMK and the identity secret in ``by_hand`` among them.

    Raises KeyBlockError or KeyPolicyError, whose message begins with the role of the key at fault (``tpk: ...``).
    """
    _check_set(answer, now)
    known = dict(by_hand)
    for role, parent in PARENTS.items():
        key = _take(role, answer.keys[role], known[parent], tolerated, tolerances)
        for other, held in known.items():
            if hmac.compare_digest(held.value, key.value):
                raise KeyPolicyError(f"{role}: it is the same key as the {other}", advice=_ASK_AGAIN)
        known[role] = key
    keys = {role: _kept(known[role], discard) for role in PARENTS}
    return StoredSet(answer.key_set_id, answer.issued_at, answer.expires_at, keys)


def _kept(key: StoredKey, discard: frozenset[Role]) -> StoredKey:
    if key.role in discard:
        return msgspec.structs.replace(key, value=b"", key_block="")
    return key if key.role in _KEPT else msgspec.structs.replace(key, value=b"")


def _take(
    role: Role, wrapped: WrappedKey, parent: StoredKey, tolerated: Tolerated, tolerances: Tolerance
) -> StoredKey:
    """One key out of its block, once everything that is said of it holds."""
    header, key = _unwrap(role, wrapped, parent, tolerances)
    policy.check(role, header, len(key.value), tolerated)
    if not wrapped.kcv:
        raise KeyPolicyError(f"{role}: it came without a check value", advice=_ASK_AGAIN)
    for method in policy.kcv_methods(header, tolerated):
        full = method(key.value, FULL_KCV)
        if kcv_matches(wrapped.kcv, full):
            return StoredKey(
                role,
                wrapped.key_id,
                full,
                header.usage,
                header.algorithm,
                header.mode,
                wrapped.key_block,
                key.value,
            )
    raise KeyPolicyError(f"{role}: its check value does not match", advice=_ASK_AGAIN)


def _unwrap(role: Role, wrapped: WrappedKey, parent: StoredKey, tolerances: Tolerance) -> _Unwrapped:
    try:
        header, value = unwrap(parent.use(Operation.UNWRAP), wrapped.key_block, tolerances)
        return _Unwrapped(header, KeyBytes(value))
    except KeyBlockError as problem:
        refused, advice = f"{role}: {problem}", problem.advice
    raise KeyBlockError(refused, advice=advice)


def _check_set(answer: WrappedKeySet, now: datetime) -> None:
    """Everything that can be said of a key set before a key is unwrapped."""
    if not is_name(answer.key_set_id):
        raise KeyPolicyError("key set: its id is empty, too long, or not printable ASCII", advice=_ASK_AGAIN)
    for role in PARENTS:
        if role not in answer.keys:
            raise KeyPolicyError(f"{role}: it is missing in the key set", advice=_ASK_AGAIN)
    for role in answer.keys:
        if role not in PARENTS:
            raise KeyPolicyError(f"{role}: it has no place in a key set", advice=_ASK_AGAIN)
    names: dict[str, Role] = {}
    for role in PARENTS:
        name = answer.keys[role].key_id
        if not is_name(name):
            raise KeyPolicyError(
                f"{role}: its key id is empty, too long, or not printable ASCII", advice=_ASK_AGAIN
            )
        if name in names:
            raise KeyPolicyError(f"{role}: it has the key id of the {names[name]}", advice=_ASK_AGAIN)
        names[name] = role
    if answer.expires_at <= max(now, answer.issued_at):
        raise KeyPolicyError(f"key set {answer.key_set_id!r}: it has expired already", advice=_ASK_AGAIN)


def is_name(text: str) -> bool:
    """Whether text can be an id: 1 to 128 characters of printable ASCII."""
    return 0 < len(text) <= _MAX_NAME and text.isascii() and text.isprintable()
