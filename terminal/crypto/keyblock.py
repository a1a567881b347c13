"""Key blocks: a key, what it may be used for, and a MAC that binds the two (ANSI X9.143, once TR-31).

    header | KBEK-CBC(bits of key | key | random padding) | MAC

The header is ``keyblock_header``'s. Versions B (triple DES) and D (AES) are read and made here; they differ
only in the cipher. From the key block protection key (KBPK) two keys are derived, one to encrypt (KBEK) and one
to authenticate (KBAK). The MAC is a CMAC over the header as it stands and the *clear* payload, and it serves as
the IV of the encryption. So nothing can be told about a block before it is decrypted, and nothing that was
decrypted is used before the MAC holds. Versions A and C, where the two keys are mere variants of the KBPK, are
deprecated and refused.

Whether a key may do what its header says in the place where it is installed is not asked here but in ``policy``.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.cmac import CMAC

from terminal.clock import Random
from terminal.crypto.keyblock_header import BLOCK_SIZES, Header, Tolerance, header_text, malformed, take_apart
from terminal.crypto.tdes import triple_des
from terminal.errors import KeyBlockError

KEY_SIZES: Final[Mapping[str, tuple[int, ...]]] = {"A": (16, 24, 32), "D": (8,), "T": (16, 24)}
"""Bytes that a key of an algorithm may have; the other algorithms do not fix it."""


@dataclass(frozen=True, slots=True)
class _Binding:
    """What sets one version apart from another."""

    cipher: Callable[[bytes], BlockCipherAlgorithm]
    derivation: Mapping[int, Sequence[bytes]]
    """Bytes of a KBPK -> what is put through its CMAC, block by block, to give the KBEK and then the KBAK."""


def _derivation_data(size: int, indicators: Mapping[int, int]) -> dict[int, list[bytes]]:
    """The derivation data for each length of KBPK, given its algorithm indicator (tables 24 and 25).

    Eight bytes: a counter from 1, what the derived key is for (0 encryption, 1 authentication) in two bytes, a
    separator, the algorithm in two bytes, and the length of the derived key in bits in two bytes.
    """
    return {
        length: [
            struct.pack(">BHBHH", counter, purpose, 0, indicator, 8 * length)
            for purpose in (0, 1)
            for counter in range(1, 1 + -(-length // size))
        ]
        for length, indicator in indicators.items()
    }


_BINDINGS: Final[Mapping[str, _Binding]] = {
    "B": _Binding(triple_des, _derivation_data(BLOCK_SIZES["B"], {16: 0, 24: 1})),  # ANSI X9.143, 7.2.1.1, table 24
    "D": _Binding(AES, _derivation_data(BLOCK_SIZES["D"], {16: 2, 24: 3, 32: 4})),  # ANSI X9.143, 7.2.2.1, table 25
}


def unwrap(kbpk: bytes, block: str, tolerances: Tolerance = Tolerance.STRICT) -> tuple[Header, bytes]:
    """The header, now authenticated, and the key in a key block (ANSI X9.143, 7.3).

    `kbpk` has 16 or 24 bytes for version B, 16, 24 or 32 for version D. KeyBlockError where the block is malformed,
    which anybody can see, and, in one and the same message, where its MAC or what it encrypts is wrong.
    """
    header, text, ciphertext, mac = take_apart(block, tolerances)
    binding = _BINDINGS[header.version]
    kbek, kbak = _derive(binding, kbpk)
    decryptor = Cipher(binding.cipher(kbek), CBC(mac)).decryptor()
    payload = decryptor.update(ciphertext) + decryptor.finalize()

    genuine = hmac.compare_digest(_cmac(binding, kbak, text + payload), mac)
    length, odd_bits = divmod(int.from_bytes(payload[:2], "big"), 8)
    fits = not odd_bits and length <= len(payload) - 2 and _size_allowed(header.algorithm, length)
    if not (genuine and fits):
        raise KeyBlockError(
            "key block: it does not verify under this key",
            advice="Compare the KCV of the protection key on both sides, then ask for the block again.",
        )
    return header, payload[2 : 2 + length]


def wrap(kbpk: bytes, header: Header, key: bytes, random: Random, *, masked_length: int | None = None) -> str:
    """A key block with this key in it (ANSI X9.143, 7.3).

    `masked_length` is the number of bytes of key that the block seems to hold: padding hides how many there are.
    Left out, it is the most that the algorithm has (6.1: 32 for AES, 24 for triple DES), or for an algorithm
    without a fixed size the key's own. KeyBlockError where the key does not fit the header or the block its limits.
    """
    binding = _BINDINGS[header.version]
    if not _size_allowed(header.algorithm, len(key)):
        raise malformed(f"{len(key)} bytes are no key of algorithm {header.algorithm}")
    if masked_length is None:
        masked_length = max(KEY_SIZES.get(header.algorithm, (len(key),)))
    if masked_length < len(key):
        raise malformed(f"a key of {len(key)} bytes is not hidden in {masked_length}")
    size = 2 + masked_length
    size += -size % BLOCK_SIZES[header.version]
    text = header_text(header, size)

    kbek, kbak = _derive(binding, kbpk)
    payload = (8 * len(key)).to_bytes(2, "big") + key + random(size - 2 - len(key))
    mac = _cmac(binding, kbak, text.encode("ascii") + payload)
    encryptor = Cipher(binding.cipher(kbek), CBC(mac)).encryptor()
    ciphertext = encryptor.update(payload) + encryptor.finalize()
    return text + (ciphertext + mac).hex().upper()


def _derive(binding: _Binding, kbpk: bytes) -> tuple[bytes, bytes]:
    """KBEK and KBAK, each as long as the KBPK: CMAC in counter mode (NIST SP 800-108; ANSI X9.143, 7.2)."""
    if len(kbpk) not in binding.derivation:
        sizes = " or ".join(map(str, binding.derivation))
        raise KeyBlockError(f"key block: its protection key must have {sizes} bytes, and this one has {len(kbpk)}")
    keyed = CMAC(binding.cipher(kbpk))  # copied below: the key schedule is made once
    material = b""
    for block in binding.derivation[len(kbpk)]:
        prf = keyed.copy()
        prf.update(block)
        material += prf.finalize()
    half = len(material) // 2  # of which an AES-192 key does not need all
    return material[: len(kbpk)], material[half : half + len(kbpk)]


def _cmac(binding: _Binding, kbak: bytes, message: bytes) -> bytes:
    cmac = CMAC(binding.cipher(kbak))
    cmac.update(message)
    return cmac.finalize()


def _size_allowed(algorithm: str, length: int) -> bool:
    return length in KEY_SIZES[algorithm] if algorithm in KEY_SIZES else length > 0
