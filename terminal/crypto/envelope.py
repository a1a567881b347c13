"""TR31-DATA and TR31-DATA-CHUNKED: JSON payloads under AES-CBC (VioPay POS API, "MSK payload encryption").

An envelope has no tag of its own: TLS authenticates answers, an HMAC header authenticates requests. Three rules
follow. Each message has a fresh random IV. Every way in which an envelope fails to open is the same
``EnvelopeError``, so that the answer to a forged one tells nothing about its padding. And nothing that a stranger
chose (body, number and size of chunks, inflated size) is without a limit.

Assumptions about the wire, all here: upper-case hex out and either case in, a chunk of at most 2,047 bytes of
plaintext, no fields but the documented ones.
"""

from __future__ import annotations

import gzip
import zlib
from binascii import a2b_hex
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Annotated, Final, Literal

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from terminal.clock import Random
from terminal.crypto.kcv import aes_kcv, kcv_matches
from terminal.errors import EnvelopeError

MAX_CHUNK: Final = 2047
"""Bytes of plaintext in a chunk: with its padding, the 2,048 that the host's key service takes."""
MAX_CHUNKS: Final = 8192
"""Chunks in an envelope: 16 MiB of gzip."""
MAX_BODY: Final = 36 * 1024 * 1024
"""Bytes of an envelope as it travels: the hex of that many full chunks, with their JSON around them."""

_BLOCK: Final = 16  # AES
_PIECE: Final = 256 * 1024  # inflated bytes given out at once: the usual document in one call of zlib
_GULP: Final = 16 * 1024  # gzip bytes taken in at once, or little more: zlib copies what it could not yet use
_GZIP: Final = 16 + zlib.MAX_WBITS
_ISIZE: Final = 4
_KCV_LENGTH: Final = 5  # the longest that an envelope may carry
# A chunk's object holds two commas and is followed by at most one; five more separate the fields around them.
_MAX_COMMAS: Final = 3 * MAX_CHUNKS + 5


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="TR31-DATA"):
    ciphertext: str
    initialization_vector: str
    mode: Literal["CBC"]
    key_kcv: str | None = None
    content_encoding: Literal["gzip"] | None = None


class _Chunked(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="TR31-DATA-CHUNKED"
):
    content_encoding: Literal["gzip"]
    mode: Literal["CBC"]
    # Raw is a view on the body, so that a chunk is copied only while it is being opened.
    chunks: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_CHUNKS)]
    key_kcv: str | None = None


class _Chunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ciphertext: Annotated[str, msgspec.Meta(min_length=2 * _BLOCK, max_length=2 * (MAX_CHUNK + 1))]
    initialization_vector: str
    mode: Literal["CBC"]


_envelopes = msgspec.json.Decoder(_Data | _Chunked)
_chunk = msgspec.json.Decoder(_Chunk)

# What the parsers, the hex, the padding and the inflater raise on bytes that a stranger chose.
_BAD_INPUT: Final = (msgspec.MsgspecError, ValueError, TypeError, RecursionError, zlib.error)


class Envelope:
    """An envelope that was parsed and not opened: of what it says, only the KCV is of use without the key."""

    __slots__ = ("_message",)

    def __init__(self, message: _Data | _Chunked) -> None:
        self._message = message

    def __repr__(self) -> str:
        return f"Envelope(key_kcv={self.key_kcv!r})"

    @property
    def key_kcv(self) -> str | None:
        """The KCV of the key that opens it, as the sender wrote it, or None where the sender left it out."""
        return self._message.key_kcv


# --- sealing --------------------------------------------------------------------------------------------------


def seal(
    key: bytes, plaintext: bytes, random: Random, *, kcv: str | None = None, compress: bool = False
) -> dict[str, str]:
    """Seal ``plaintext`` under a 32-byte AES key, as a TR31-DATA object ready for JSON.

    ``kcv`` (3 to 5 bytes of hex) goes into ``key_kcv``; a host gives it, a terminal's request may leave it out.
    With ``compress`` the plaintext is gzipped first.
    """
    sealed = {
        "format": "TR31-DATA",
        **_seal(key, packed(plaintext) if compress else plaintext, random),
    }
    if kcv is not None:
        sealed["key_kcv"] = kcv.upper()
    if compress:
        sealed["content_encoding"] = "gzip"
    return sealed


def packed(plaintext: bytes) -> bytes:
    """A large document as it is cut and sealed: gzipped."""
    return gzip.compress(plaintext, mtime=0)


def seal_chunked(
    key: bytes, plaintext: bytes, random: Random, kcv: str, *, chunk: int = MAX_CHUNK
) -> dict[str, object]:
    """Seal a large document as a host does: gzip it, cut it, seal each piece of ``chunk`` bytes by itself."""
    return seal_packed(key, packed(plaintext), random, kcv, chunk=chunk)


def seal_packed(
    key: bytes, document: bytes, random: Random, kcv: str, *, chunk: int = MAX_CHUNK
) -> dict[str, object]:
    """The same of a document that is ``packed`` already, as a host has it that gives it to many."""
    return {
        "format": "TR31-DATA-CHUNKED",
        "content_encoding": "gzip",
        "mode": "CBC",
        "key_kcv": kcv.upper(),
        "chunks": [_seal(key, document[at : at + chunk], random) for at in range(0, len(document), chunk)],
    }


def encode(sealed: Mapping[str, object]) -> bytes:
    """The exact bytes that travel, and over which a request is signed: compact JSON."""
    return msgspec.json.encode(sealed)


def _seal(key: bytes, plaintext: bytes, random: Random) -> dict[str, str]:
    iv = random(_BLOCK)
    padder = PKCS7(8 * _BLOCK).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize())
    return {
        "ciphertext": ciphertext.hex().upper(),
        "initialization_vector": iv.hex().upper(),
        "mode": "CBC",
    }


# --- opening --------------------------------------------------------------------------------------------------


def parse(body: bytes | Mapping[str, object]) -> Envelope:
    """Read an envelope without opening it: from its bytes, or from an object inside JSON that is parsed already.

    Raises EnvelopeError.
    """
    try:
        if not isinstance(body, bytes):
            body = msgspec.json.encode(dict(body))
        # Every element of an array but the first follows a comma, and has a byte of its own: this bounds what
        # parsing can allocate.
        if len(body) > MAX_BODY or (len(body) > 2 * _MAX_COMMAS and body.count(b",") > _MAX_COMMAS):
            raise ValueError
        return Envelope(_envelopes.decode(body))
    except _BAD_INPUT:
        raise EnvelopeError from None


def open_envelope(
    key: bytes, body: bytes | Mapping[str, object] | Envelope, *, limit: int, kcv: str | None = None
) -> bytes:
    """Open either kind of envelope under a 32-byte AES key; give back at most ``limit`` bytes.

    ``kcv`` is the key's own, best with all 5 bytes (it is computed when not given); an envelope that carries
    another is refused before anything is decrypted. A gzip stream that would inflate beyond ``limit`` is refused
    after at most ``limit`` bytes. Raises EnvelopeError, whatever the reason.

    The key is only as sure as the KCV: an envelope without one, opened under the wrong key, comes out as noise
    once in 256 times. What the caller makes of the plaintext has to be strict.
    """
    try:
        message = _checked(key, body, kcv)
        if isinstance(message, _Data) and message.content_encoding is None:
            if len(message.ciphertext) > 2 * (limit + _BLOCK):
                raise ValueError
            plaintext = _open(key, message)
            if len(plaintext) > limit:
                raise ValueError
            return plaintext
        return _inflate_all(key, message, limit)
    except _BAD_INPUT:
        raise EnvelopeError from None


def open_stream(
    key: bytes, body: bytes | Mapping[str, object] | Envelope, *, limit: int, kcv: str | None = None
) -> Iterator[bytes]:
    """Open an envelope with gzip inside piece by piece, never holding more than 256 KiB of it.

    What is given out is known to be whole only when the iterator has ended without an EnvelopeError: until then
    it may be acted upon by nobody.
    """
    try:
        message = _checked(key, body, kcv)
        if isinstance(message, _Data) and message.content_encoding is None:
            raise ValueError
        packed = _chunks(key, message.chunks) if isinstance(message, _Chunked) else _gulps(_open(key, message))
        yield from _inflate(packed, limit)
    except _BAD_INPUT:
        raise EnvelopeError from None


def _checked(key: bytes, body: bytes | Mapping[str, object] | Envelope, kcv: str | None) -> _Data | _Chunked:
    """The message, once the KCV that it carries is known to be this key's."""
    envelope = body if isinstance(body, Envelope) else parse(body)
    claimed = envelope.key_kcv
    if claimed is not None and not kcv_matches(claimed, kcv or aes_kcv(key, _KCV_LENGTH)):
        raise ValueError
    return envelope._message


def _open(key: bytes, sealed: _Data | _Chunk) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(a2b_hex(sealed.initialization_vector))).decryptor()
    padded = decryptor.update(a2b_hex(sealed.ciphertext)) + decryptor.finalize()
    unpadder = PKCS7(8 * _BLOCK).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _open_chunk(key: bytes, raw: msgspec.Raw) -> bytes:
    plaintext = _open(key, _chunk.decode(raw))
    if not plaintext:
        raise ValueError
    return plaintext


def _chunks(key: bytes, chunks: Iterable[msgspec.Raw], ending: bytes = b"") -> Iterator[bytes]:
    """What is in the chunks, and then what is in those that were opened before, joined to gulps."""
    gulp = bytearray()
    for raw in chunks:
        gulp += _open_chunk(key, raw)
        if len(gulp) >= _GULP:
            yield bytes(gulp)
            gulp.clear()
    if gulp or ending:
        yield bytes(gulp) + ending


def _gulps(packed: bytes) -> Iterator[bytes]:
    for at in range(0, len(packed), _GULP):
        yield packed[at : at + _GULP]


def _inflate(packed: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Inflate one gzip member that fills ``packed`` exactly; refuse to give out more than ``limit`` bytes."""
    inflater = zlib.decompressobj(_GZIP)
    left = limit
    for gulp in packed:
        if inflater.eof:
            raise ValueError  # something follows the end
        while gulp:
            # At the limit one byte more is asked for: it must not come.
            piece = inflater.decompress(gulp, min(_PIECE, left) or 1)
            if len(piece) > left:
                raise ValueError
            left -= len(piece)
            yield piece
            gulp = inflater.unconsumed_tail
    if not inflater.eof or inflater.unused_data:
        raise ValueError


def _inflate_all(key: bytes, message: _Data | _Chunked, limit: int) -> bytes:
    """The whole document, in a buffer that is allocated once.

    A gzip stream ends with its inflated size (RFC 1952, ISIZE), to which the inflater holds it. Read first, it
    says how much to allocate, and spares the work where it is above the limit. BytesIO gives its buffer away
    without a copy.
    """
    if isinstance(message, _Chunked):
        ending, opened = b"", 0
        for raw in reversed(message.chunks):
            ending, opened = _open_chunk(key, raw) + ending, opened + 1
            if len(ending) >= _ISIZE:
                break
        packed: Iterable[bytes] = _chunks(key, message.chunks[:-opened], ending)
    else:
        ending = _open(key, message)
        packed = _gulps(ending)
    size = int.from_bytes(ending[-_ISIZE:], "little")
    if size > limit:
        raise ValueError
    pieces = _inflate(packed, size)
    first = next(pieces, b"")
    if len(first) == size:  # the usual document comes in one piece; what else there is must be the end
        return first + b"".join(pieces)
    out = BytesIO(bytes(size))
    out.write(first)
    for piece in pieces:
        out.write(piece)
    assert out.tell() == size  # or the inflater would have refused the end of the stream
    return out.getvalue()
