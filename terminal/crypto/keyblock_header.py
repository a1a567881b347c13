"""What a key block says in the clear, and how it is written: the header of ANSI X9.143 and its optional blocks.

A block is one line of printable ASCII. The header is in the clear and says what the key is for; the rest is hex:

    D 0144 P0 A E 00 E 00 0 0 | optional blocks | what is encrypted | MAC
    | |    |  | | |  | |  | |
    | |    |  | | |  | |  | reserved, always 0
    | |    |  | | |  | |  key context (0 in blocks of TR-31:2018)
    | |    |  | | |  | number of optional blocks, padding block included
    | |    |  | | |  exportability (table 6)
    | |    |  | | key version (table 5)
    | |    |  | mode of use (table 4)
    | |    |  algorithm (table 3)
    | |    usage (table 2)
    | length of the whole block in characters
    version: how the block is protected

Nothing here is to be trusted before ``keyblock.unwrap`` has found the MAC to hold.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Final

from terminal.errors import KeyBlockError

# What the fields of a header may say. Values made of digits are left to private agreements by each table.

USAGES: Final[Mapping[str, str]] = {  # ANSI X9.143, 6.3.1, table 2
    "B0": "base derivation key (BDK)",
    "B1": "initial DUKPT key",
    "B2": "base key variant key",
    "B3": "key derivation key",
    "C0": "card verification key",
    "D0": "symmetric data encryption key",
    "D1": "asymmetric data encryption key",
    "D2": "data encryption key for a decimalisation table",
    "D3": "data encryption key for sensitive data",
    "E0": "EMV issuer master key: application cryptograms",
    "E1": "EMV issuer master key: secure messaging, confidentiality",
    "E2": "EMV issuer master key: secure messaging, integrity",
    "E3": "EMV issuer master key: data authentication code",
    "E4": "EMV issuer master key: dynamic numbers",
    "E5": "EMV issuer master key: card personalisation",
    "E6": "EMV issuer master key: other",
    "E7": "EMV asymmetric key pair for PIN encryption",
    "I0": "initialisation vector",
    "K0": "key encryption key",
    "K1": "key block protection key (KBPK)",
    "K2": "TR-34 asymmetric key",
    "K3": "asymmetric key for key wrapping or key agreement",
    "K4": "ISO 20038 key block protection key",
    "M0": "ISO 16609 MAC algorithm 1, triple DES",
    "M1": "ISO 9797-1 MAC algorithm 1",
    "M2": "ISO 9797-1 MAC algorithm 2",
    "M3": "ISO 9797-1 MAC algorithm 3",
    "M4": "ISO 9797-1 MAC algorithm 4",
    "M5": "ISO 9797-1:1999 MAC algorithm 5",
    "M6": "ISO 9797-1:2011 MAC algorithm 5, CMAC",
    "M7": "HMAC key",
    "M8": "ISO 9797-1:2011 MAC algorithm 6",
    "P0": "PIN encryption key",
    "P1": "PIN generation key",
    "S0": "asymmetric key pair for digital signatures",
    "S1": "asymmetric key pair, CA key",
    "S2": "asymmetric key pair outside X9.24",
    "V0": "PIN verification key, other algorithm",
    "V1": "PIN verification key, IBM 3624",
    "V2": "PIN verification key, Visa PVV",
    "V3": "PIN verification key, X9.132 algorithm 1",
    "V4": "PIN verification key, X9.132 algorithm 2",
    "V5": "PIN verification key, X9.132 algorithm 3",
}

ALGORITHMS: Final[Mapping[str, str]] = {  # ANSI X9.143, 6.3.2, table 3
    "A": "AES",
    "D": "DES",
    "E": "elliptic curve",
    "H": "HMAC",
    "R": "RSA",
    "S": "DSA",
    "T": "triple DES",
}

MODES: Final[Mapping[str, str]] = {  # ANSI X9.143, 6.3.3, table 4
    "B": "encrypt and decrypt, wrap and unwrap",
    "C": "generate and verify",
    "D": "decrypt, unwrap",
    "E": "encrypt, wrap",
    "G": "generate",
    "N": "whatever the usage allows",
    "S": "sign",
    "T": "sign and decrypt",
    "V": "verify",
    "X": "derive keys",
    "Y": "make key variants",
}

EXPORTABILITY: Final[Mapping[str, str]] = {  # ANSI X9.143, 6.3.5, table 6
    "E": "exportable under a trusted key",
    "N": "not exportable",
    "S": "sensitive: exportable under an untrusted key",
}

BLOCK_SIZES: Final[Mapping[str, int]] = {"B": 8, "D": 16}
"""Bytes of a cipher block, and of the MAC, by version: triple DES and AES. The header fills whole blocks."""

MAX_LENGTH: Final = 9999
"""Characters of a key block: its length field has four decimal digits (table 1)."""

KEY_CONTEXTS: Final = ("0", "1", "2")
"""What the block is for (table 1): anything, storage only, or exchange only."""

MAX_BLOCKS: Final = 99
"""Optional blocks in a key block, the padding block included: the field has two decimal digits (table 1)."""

_FIXED: Final = 16  # characters of the header before the optional blocks (table 1)
_PADDING_ID: Final = "PB"  # the optional block that fills the header up to whole cipher blocks (6.3.6)


class Tolerance(Flag):
    """What a key block may do against the standard and still be read. All off unless asked for by name."""

    STRICT = 0
    LOWER_CASE_HEX = auto()
    """Hex digits a to f, in the lengths of optional blocks, the payload and the MAC."""
    RESERVED_FIELD = auto()
    """A reserved character other than 0. Ignored, yet the MAC covers it."""


@dataclass(frozen=True, slots=True)
class OptionalBlock:
    """One optional block: `id`, two letters or digits (table 7), and `data`, the characters after its length.

    KeyBlockError where it could not be part of a key block.
    """

    id: str
    data: str

    def __post_init__(self) -> None:
        if not _alphanumeric(self.id, 2):
            raise malformed("the id of an optional block is not two letters or digits")
        if not (self.data.isascii() and self.data.isprintable()):
            raise malformed(f"the optional block {self.id} holds characters that are not printable ASCII")


@dataclass(frozen=True)
class Header:
    """What a key block says about its key, in the clear. KeyBlockError where the tables have no such value.

    `blocks` are the optional blocks in their order, each id at most once, without the padding block: that one says
    nothing, and is made anew when a key is wrapped.
    """

    version: str
    usage: str
    algorithm: str
    mode: str
    key_version: str = "00"
    exportability: str = "N"
    blocks: tuple[OptionalBlock, ...] = ()
    key_context: str = "0"

    def __post_init__(self) -> None:
        if self.version not in BLOCK_SIZES:
            raise malformed("its version is not B or D")
        if self.usage not in USAGES and not _digits(self.usage, 2):
            raise malformed(f"{self.usage!r} is no usage that ANSI X9.143 knows")
        if self.algorithm not in ALGORITHMS and not _digits(self.algorithm, 1):
            raise malformed(f"{self.algorithm!r} is no algorithm that ANSI X9.143 knows")
        if self.mode not in MODES and not _digits(self.mode, 1):
            raise malformed(f"{self.mode!r} is no mode of use that ANSI X9.143 knows")
        if not _alphanumeric(self.key_version, 2):  # 6.3.4, table 5
            raise malformed("its key version is not two letters or digits")
        if self.exportability not in EXPORTABILITY and not _digits(self.exportability, 1):
            raise malformed(f"{self.exportability!r} is no exportability that ANSI X9.143 knows")
        if self.key_context not in KEY_CONTEXTS:
            raise malformed(f"{self.key_context!r} is no key context that ANSI X9.143 knows")
        if self.blocks:
            ids = {block.id for block in self.blocks}
            if _PADDING_ID in ids:
                raise malformed("the padding block is made by `wrap`, never given")
            if len(ids) != len(self.blocks):  # 6.3.6
                raise malformed("an optional block occurs twice")

    @property
    def is_component(self) -> bool:
        """Whether the payload is a component of a key rather than a key (6.3.4, table 5)."""
        return self.key_version.startswith("c")

    def block(self, id: str) -> str | None:
        """The data of the optional block with this id, or None."""
        return next((block.data for block in self.blocks if block.id == id), None)


def parse_header(block: str, tolerances: Tolerance = Tolerance.STRICT) -> Header:
    """What a key block claims to hold, read without a key: well formed, and not to be trusted.

    KeyBlockError names what is malformed.
    """
    return take_apart(block, tolerances)[0]


def take_apart(block: str, tolerances: Tolerance) -> tuple[Header, bytes, bytes, bytes]:
    """A key block taken apart: its header, the header's text (which the MAC covers), ciphertext and MAC.

    Everything is checked here that can be checked without a key. No value is repeated in a message before the
    length field has shown that this is a key block, and not a key that went astray.
    """
    if not _FIXED <= len(block) <= MAX_LENGTH:
        raise malformed(f"it has fewer than {_FIXED} or more than {MAX_LENGTH} characters")
    if not (block.isascii() and block.isprintable()):
        raise malformed("it is not printable ASCII")
    if block[0] not in BLOCK_SIZES:
        raise malformed("its version is not B or D")
    size = BLOCK_SIZES[block[0]]
    if block[1:5] != f"{len(block):04}":
        raise malformed("its length field is not its length")
    if not _digits(block[12:14], 2):
        raise malformed("its number of optional blocks is not two digits")
    if block[15] != "0" and Tolerance.RESERVED_FIELD not in tolerances:
        raise malformed("its reserved field is not 0")
    count = int(block[12:14])
    blocks, end = _parse_blocks(block, count, tolerances) if count else ((), _FIXED)
    if (end - _FIXED) % size:
        raise malformed(f"its optional blocks do not fill whole cipher blocks of {size}")
    header = Header(block[0], block[5:7], block[7], block[8], block[9:11], block[11], blocks, block[14])

    binary = _from_hex(block[end:], tolerances)
    if len(binary) % size or len(binary) < 2 * size:
        raise malformed(f"its payload and MAC are not whole cipher blocks of {size} bytes, one each at least")
    return header, block[:end].encode("ascii"), binary[:-size], binary[-size:]


def _parse_blocks(block: str, count: int, tolerances: Tolerance) -> tuple[tuple[OptionalBlock, ...], int]:
    """`count` optional blocks (6.3.6), without the padding block that may be the last, and where they end.

    A length counts the whole block with its id and itself. It has two hex digits, or where they are 00 (the
    extended form, for more than 255 characters) the number of its bytes, 02, and then four hex digits.
    """
    found = []
    at = _FIXED
    for following in reversed(range(count)):
        start, length = at + 4, block[at + 2 : at + 4]
        if length == "00":
            if block[start : start + 2] != "02":
                raise malformed("the extended length of an optional block is not of two bytes")
            start, length = at + 10, block[at + 6 : at + 10]
        end = at + int.from_bytes(_from_hex(length, tolerances), "big")
        if not start <= end <= len(block):
            raise malformed("an optional block is shorter than its own length field, or runs over the end")
        id = block[at : at + 2]
        if id != _PADDING_ID:
            found.append(OptionalBlock(id, block[start:end]))
        elif following:
            raise malformed("its padding block is not the last")
        at = end
    return tuple(found), at


def header_text(header: Header, size: int) -> str:
    """The header's text where so many bytes are encrypted. KeyBlockError where the block is above its limits."""
    block_size = BLOCK_SIZES[header.version]
    count, blocks = _format_blocks(header.blocks, block_size)
    total = _FIXED + len(blocks) + 2 * size + 2 * block_size
    if total > MAX_LENGTH or count > MAX_BLOCKS:
        raise malformed(f"{total} characters with {count} optional blocks are above {MAX_LENGTH} or {MAX_BLOCKS}")
    return (
        f"{header.version}{total:04}{header.usage}{header.algorithm}{header.mode}"
        f"{header.key_version}{header.exportability}{count:02}{header.key_context}0{blocks}"
    )


def _format_blocks(blocks: tuple[OptionalBlock, ...], size: int) -> tuple[int, str]:
    """How many, and their text, filled up by a padding block to whole cipher blocks of `size` characters."""
    text = "".join(_format_block(block) for block in blocks)
    if len(text) % size == 0:
        return len(blocks), text
    filler = "0" * (-(len(text) + 4) % size)
    return len(blocks) + 1, text + _format_block(OptionalBlock(_PADDING_ID, filler))


def _format_block(block: OptionalBlock) -> str:
    short = 4 + len(block.data)
    length = f"{short:02X}" if short <= 0xFF else f"0002{6 + short:04X}"
    return f"{block.id}{length}{block.data}"


def _from_hex(digits: str, tolerances: Tolerance) -> bytes:
    if digits != digits.upper() and Tolerance.LOWER_CASE_HEX not in tolerances:
        raise malformed("its hex is not in upper case")
    try:
        return binascii.a2b_hex(digits)  # which, unlike bytes.fromhex, skips no white space
    except ValueError:
        raise malformed("hex digits are missing, or are none") from None


def _alphanumeric(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isalnum()


def _digits(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdecimal()


def malformed(what: str) -> KeyBlockError:
    """The error that names what is wrong with a key block."""
    return KeyBlockError(f"key block: {what}", advice="Ask whoever made the key block for a well-formed one.")
