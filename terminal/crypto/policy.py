"""What a key may be, and may do, in the role in which a terminal holds it.

A key block's header is true once its MAC holds, but true of what? A key that was made to open payloads must not
be installed to encrypt PINs because somebody swapped two fields of JSON. So each role names the headers that it
takes (ANSI X9.143 tables 2 to 4 for the values; that a role takes these and no others is our rule), and each use of
a key is checked against its role and its mode of use again.

What the host's documents tolerate is on in ``DEFAULT``; everything else that could be tolerated has a name in
``Tolerated`` and is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Flag, StrEnum, auto
from typing import Final

from terminal.crypto.kcv import aes_kcv, ecb_kcv, hmac_kcv
from terminal.crypto.keyblock_header import Header
from terminal.errors import KeyPolicyError


class Role(StrEnum):
    """What a terminal holds keys for. The first and the last come by hand, the others in key blocks."""

    ZMK = auto()
    """Zone master key, entered in a ceremony: protects the TMK."""
    TMK = auto()
    """Terminal master key: protects the KEK."""
    KEK = auto()
    """Key encryption key: protects the four below."""
    MSK = auto()
    """Message key: seals and opens the payload envelopes."""
    TPK = auto()
    """PIN key: makes PIN blocks."""
    TDK = auto()
    """Data key: seals card data inside a payload."""
    MAC = auto()
    """Signs requests."""
    IDENTITY = auto()
    """The device's own secret: signs attestations."""


class Operation(StrEnum):
    """What can be done with a key."""

    WRAP = auto()
    UNWRAP = auto()
    ENCRYPT = auto()
    DECRYPT = auto()
    SIGN = auto()
    VERIFY = auto()
    PIN = auto()
    """Encrypt a PIN block, and nothing but a PIN block."""


class Tolerated(Flag):
    """What a key may be besides what its role asks for."""

    NOTHING = 0
    K0_FOR_KEK = auto()
    """A TMK or KEK of usage K0, key encryption in general, instead of K1, protection of key blocks."""
    BOTH_DIRECTIONS_KEK = auto()
    """A TMK or KEK of mode B, which could wrap as well as unwrap."""
    BOTH_DIRECTIONS_TDK = auto()
    """A TDK of mode B, which could open card data as well as seal it."""
    MODE_N_HMAC = auto()
    """A MAC key of mode N, no restrictions."""
    M6_HMAC = auto()
    """A MAC key of usage M6 and algorithm A, a CMAC key, used as the secret of an HMAC."""
    ECB_KCV = auto()
    """The legacy check value, zeros under ECB, where it gives nothing away that matters."""


DEFAULT: Final = Tolerated.K0_FOR_KEK | Tolerated.BOTH_DIRECTIONS_KEK | Tolerated.BOTH_DIRECTIONS_TDK
"""What the host's documents tolerate."""

VERSION: Final = "D"
"""The only version of key block in which keys are taken: AES protects AES."""

KEY_LENGTH: Final = 32
"""Bytes of every key that is taken: AES-256, and an HMAC secret of the same strength."""

EXPORTABILITY: Final = ("N", "E")
"""Not exportable, or only under a trusted key. Never S, under an untrusted one, nor what is privately agreed on."""

KEY_CONTEXTS: Final = ("0", "2")
"""For anything, or for exchange, which this is. Never 1: such a block should not have left its store."""

SHA_256: Final = "21"
"""The hash of an HMAC key, in its optional block HM (ANSI X9.143, 6.3.6.5, table 13)."""

_ALWAYS: Final = Tolerated.NOTHING
_KEY_PROTECTION: Final = {
    ("K1", "A", "D"): _ALWAYS,
    ("K1", "A", "B"): Tolerated.BOTH_DIRECTIONS_KEK,
    ("K0", "A", "D"): Tolerated.K0_FOR_KEK,
    ("K0", "A", "B"): Tolerated.K0_FOR_KEK | Tolerated.BOTH_DIRECTIONS_KEK,
}

HEADERS: Final[Mapping[Role, Mapping[tuple[str, str, str], Tolerated]]] = {
    Role.ZMK: {},
    Role.TMK: _KEY_PROTECTION,
    Role.KEK: _KEY_PROTECTION,
    Role.MSK: {
        ("D0", "A", "B"): _ALWAYS,
    },
    Role.TPK: {
        ("P0", "A", "E"): _ALWAYS,
    },
    Role.TDK: {
        ("D0", "A", "E"): _ALWAYS,
        ("D3", "A", "E"): _ALWAYS,
        ("D0", "A", "B"): Tolerated.BOTH_DIRECTIONS_TDK,
        ("D3", "A", "B"): Tolerated.BOTH_DIRECTIONS_TDK,
    },
    Role.MAC: {
        ("M7", "H", "G"): _ALWAYS,
        ("M7", "H", "C"): _ALWAYS,
        ("M7", "H", "N"): Tolerated.MODE_N_HMAC,
        ("M6", "A", "G"): Tolerated.M6_HMAC,
        ("M6", "A", "C"): Tolerated.M6_HMAC,
        ("M6", "A", "N"): Tolerated.M6_HMAC | Tolerated.MODE_N_HMAC,
    },
    Role.IDENTITY: {},
}
"""(usage, algorithm, mode) that a role takes -> what has to be tolerated for it. All of it has to be."""

_ROLE_DOES: Final[Mapping[Role, frozenset[Operation]]] = {
    Role.ZMK: frozenset({Operation.UNWRAP}),
    Role.TMK: frozenset({Operation.UNWRAP}),
    Role.KEK: frozenset({Operation.UNWRAP}),
    Role.MSK: frozenset({Operation.ENCRYPT, Operation.DECRYPT}),
    Role.TPK: frozenset({Operation.PIN}),
    Role.TDK: frozenset({Operation.ENCRYPT}),
    Role.MAC: frozenset({Operation.SIGN, Operation.VERIFY}),
    Role.IDENTITY: frozenset({Operation.SIGN}),
}
"""What a terminal has a key in this role for, whatever else its mode would allow."""

_MODE_ALLOWS: Final[Mapping[str, frozenset[Operation]]] = {  # ANSI X9.143, 6.3.3, table 4
    "B": frozenset({Operation.WRAP, Operation.UNWRAP, Operation.ENCRYPT, Operation.DECRYPT}),
    "C": frozenset({Operation.SIGN, Operation.VERIFY}),
    "D": frozenset({Operation.UNWRAP, Operation.DECRYPT}),
    "E": frozenset({Operation.WRAP, Operation.ENCRYPT, Operation.PIN}),
    "G": frozenset({Operation.SIGN}),
    "N": frozenset(
        {Operation.SIGN, Operation.VERIFY}
    ),  # of all that it would allow: only an HMAC secret may have it
    "V": frozenset({Operation.VERIFY}),
}
"""What a mode of use allows. B leaves PIN out: a key that can open PIN blocks has no place in a terminal."""

_NEVER_ECB: Final = frozenset({"K0", "K1", "M6"})


def check(role: Role, header: Header, key_length: int, tolerated: Tolerated = DEFAULT) -> None:
    """Whether a key with this header and this length in bytes may be installed in this role.

    KeyPolicyError names the role, what the header says and what the role wants.
    """
    headers = HEADERS[role]
    if not headers:
        raise _refused(role, "its key does not come in a key block")
    found = (header.usage, header.algorithm, header.mode)
    if found not in headers:
        wanted = " or ".join(_name(*each) for each, needed in headers.items() if needed in tolerated)
        raise _refused(role, f"a key of {_name(*found)} is not allowed for this role (wants {wanted})")
    if missing := headers[found] & ~tolerated:
        raise _refused(role, f"a key of {_name(*found)} is not allowed for this role without {_flags(missing)}")
    if header.version != VERSION:
        raise _refused(role, f"its key block has version {header.version} (wants {VERSION})")
    if header.exportability not in EXPORTABILITY:
        raise _refused(role, f"exportability {header.exportability} (wants {' or '.join(EXPORTABILITY)})")
    if header.key_context not in KEY_CONTEXTS:
        raise _refused(role, f"key context {header.key_context} (wants {' or '.join(KEY_CONTEXTS)})")
    if header.is_component:
        raise _refused(role, "its key block holds a component of a key")
    if header.algorithm == "H" and header.block("HM") != SHA_256:
        raise _refused(role, f"its key block does not say SHA-256 (wants an optional block HM of {SHA_256})")
    if key_length != KEY_LENGTH:
        raise _refused(role, f"its key has {key_length} bytes (wants {KEY_LENGTH})")


def may(role: Role, mode: str, operation: Operation) -> bool:
    """Whether a key in this role, with this mode of use, may be used so.

    A key that came by hand has no header; a ZMK is used as of mode D, an identity secret as of mode G.
    """
    return operation in _ROLE_DOES[role] and operation in _MODE_ALLOWS.get(mode, frozenset())


def require(role: Role, mode: str, operation: Operation) -> None:
    """Nothing where the use is allowed, KeyPolicyError where it is not. Asked on every use of every key."""
    if not may(role, mode, operation):
        raise KeyPolicyError(
            f"{role}: a key of mode {mode!r} in this role must not {_VERBS[operation]}",
            advice="This is a fault in the program that asked: each key has one purpose.",
        )


def kcv_methods(header: Header, tolerated: Tolerated = DEFAULT) -> tuple[Callable[[bytes, int], str], ...]:
    """The check values that may vouch for a key with this header, the proper one first (ANSI X9.24-1, annex A).

    The legacy one gives away bits of what CMAC starts from, so it never vouches for a key that is put through
    CMAC (K0, K1, M6), whatever is tolerated.
    """
    if header.algorithm == "H":
        return (hmac_kcv,)
    if Tolerated.ECB_KCV in tolerated and header.usage not in _NEVER_ECB:
        return aes_kcv, ecb_kcv
    return (aes_kcv,)


_VERBS: Final[Mapping[Operation, str]] = {
    Operation.WRAP: "wrap keys",
    Operation.UNWRAP: "unwrap keys",
    Operation.ENCRYPT: "encrypt data",
    Operation.DECRYPT: "decrypt data",
    Operation.SIGN: "sign",
    Operation.VERIFY: "verify signatures",
    Operation.PIN: "encrypt PINs",
}


def _name(usage: str, algorithm: str, mode: str) -> str:
    return f"{usage}/{algorithm} mode {mode}"


def _flags(tolerated: Tolerated) -> str:
    return " and ".join(flag.name for flag in tolerated if flag.name)


def _refused(role: Role, why: str) -> KeyPolicyError:
    return KeyPolicyError(f"{role}: {why}", advice="Nothing was installed. The host has to make this key anew.")
