from __future__ import annotations

import gzip
import json
import os
import tracemalloc
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from terminal.crypto import envelope
from terminal.crypto.envelope import MAX_CHUNK, MAX_CHUNKS, encode, open_envelope, open_stream, seal, seal_chunked
from terminal.crypto.kcv import aes_kcv
from terminal.errors import EnvelopeError

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
KCV = aes_kcv(KEY, 5)
LIMIT = 1 << 20


def refused(body: bytes | Mapping[str, Any], *, key: bytes = KEY, limit: int = LIMIT) -> EnvelopeError:
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(key, body, limit=limit)
    assert str(caught.value) == str(EnvelopeError())
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None
    return caught.value


def bare_seal(padded: bytes, *, key: bytes = KEY, iv: bytes = bytes(16)) -> dict[str, str]:
    """An envelope around bytes that need not be padded well."""
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return {
        "format": "TR31-DATA",
        "ciphertext": ciphertext.hex(),
        "initialization_vector": iv.hex(),
        "mode": "CBC",
    }


def chunked(pieces: list[bytes], **changes: object) -> dict[str, Any]:
    """A chunked envelope around pieces that need not be gzip, nor of a good size."""
    chunks = [{k: v for k, v in seal(KEY, piece, os.urandom).items() if k != "format"} for piece in pieces]
    return {
        "format": "TR31-DATA-CHUNKED",
        "content_encoding": "gzip",
        "mode": "CBC",
        "key_kcv": KCV[:6],
        "chunks": chunks,
        **changes,
    }


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- what goes in comes out ---------------------------------------------------------------------------------


def test_the_block_cipher_is_that_of_the_standard() -> None:
    """NIST SP 800-38A, F.2.5 (CBC-AES256.Encrypt), first block."""
    key = bytes.fromhex("603DEB1015CA71BE2B73AEF0857D77811F352C073B6108D72D9810A30914DFF4")
    iv = bytes.fromhex("000102030405060708090A0B0C0D0E0F")
    sealed = seal(key, bytes.fromhex("6BC1BEE22E409F96E93D7E117393172A"), lambda _: iv)
    assert sealed["ciphertext"].startswith("F58C4C04D6E5F1BA779EABFB5F7BFBD6")
    assert len(sealed["ciphertext"]) == 64  # a whole block of padding follows


def test_an_envelope_has_the_documented_fields_in_upper_case_hex() -> None:
    sealed = seal(KEY, b"{}", lambda n: b"\xab" * n)
    assert list(sealed) == ["format", "ciphertext", "initialization_vector", "mode"]
    assert sealed["format"] == "TR31-DATA"
    assert sealed["mode"] == "CBC"
    assert sealed["initialization_vector"] == "AB" * 16
    assert sealed["ciphertext"] == sealed["ciphertext"].upper()
    assert json.loads(encode(sealed)) == sealed
    assert b" " not in encode(sealed)


@given(st.binary(max_size=300), st.booleans(), st.sampled_from([None, 3, 4, 5]), st.booleans())
def test_what_is_sealed_opens(plaintext: bytes, compress: bool, kcv_length: int | None, lower: bool) -> None:
    kcv = aes_kcv(KEY, kcv_length) if kcv_length else None
    sealed = seal(KEY, plaintext, os.urandom, kcv=kcv, compress=compress)
    if lower:
        hex_fields = ("ciphertext", "initialization_vector", "key_kcv")
        sealed = {name: value.lower() if name in hex_fields else value for name, value in sealed.items()}
    assert open_envelope(KEY, encode(sealed), limit=300, kcv=KCV) == plaintext
    assert open_envelope(KEY, sealed, limit=300) == plaintext


@given(st.binary(max_size=5000), st.integers(1, 700))
def test_a_chunked_document_opens_whole_and_as_a_stream(plaintext: bytes, chunk: int) -> None:
    body = encode(seal_chunked(KEY, plaintext, os.urandom, KCV[:6], chunk=chunk))
    assert open_envelope(KEY, body, limit=5000, kcv=KCV) == plaintext
    assert b"".join(open_stream(KEY, body, limit=5000, kcv=KCV)) == plaintext


def test_a_large_document_is_cut_into_chunks_of_the_documented_size() -> None:
    plaintext = os.urandom(40_000)
    sealed: dict[str, Any] = seal_chunked(KEY, plaintext, os.urandom, KCV.lower())
    sizes = [len(chunk["ciphertext"]) // 2 for chunk in sealed["chunks"]]
    assert len(sizes) == 20
    assert set(sizes[:-1]) == {2048}
    assert sealed["key_kcv"] == KCV
    assert len({chunk["initialization_vector"] for chunk in sealed["chunks"]}) == 20
    assert open_envelope(KEY, sealed, limit=40_000) == plaintext


def test_every_message_has_its_own_iv() -> None:
    ivs = {seal(KEY, b"x", os.urandom)["initialization_vector"] for _ in range(100)}
    assert len(ivs) == 100


def test_a_body_may_be_spaced_out_and_its_strings_escaped() -> None:
    sealed = chunked(cut(gzip.compress(b"spaced"), 7))
    body = json.dumps(sealed, indent=2).replace('"CBC"', '"\\u0043BC"').encode()
    assert open_envelope(KEY, body, limit=100) == b"spaced"


def test_a_single_envelope_inflates_beyond_one_gulp() -> None:
    plaintext = os.urandom(100_000)
    body = encode(seal(KEY, plaintext, os.urandom, compress=True))
    assert open_envelope(KEY, body, limit=100_000) == plaintext
    assert b"".join(open_stream(KEY, body, limit=100_000)) == plaintext


# --- what is refused ----------------------------------------------------------------------------------------

GOOD = seal(KEY, b'{"amount":1}', lambda n: bytes(n), kcv=KCV)
GZIP = gzip.compress(b"0123456789" * 40, mtime=0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"format":"TR31-DATA-CHUNKED","content_encoding":"gzip","mode":"CBC","chunks":' + b"[" * 200_000,
        encode(GOOD)[:-1],
        encode(GOOD) + b"{}",
        {**GOOD, "format": "TR31-DATA2"},
        {**GOOD, "format": "TR31-DATA-CHUNKED"},
        {**GOOD, "mode": "cbc"},
        {**GOOD, "mode": "ECB"},
        {**GOOD, "tag": ""},
        {**GOOD, "content_encoding": "br"},
        {**GOOD, "content_encoding": "gzip"},
        {**GOOD, "initialization_vector": "00" * 15},
        {**GOOD, "initialization_vector": "00" * 17},
        {**GOOD, "initialization_vector": ""},
        {**GOOD, "initialization_vector": "0" * 31},
        {**GOOD, "initialization_vector": "0 " * 16},
        {**GOOD, "initialization_vector": "é" * 32},
        {**GOOD, "initialization_vector": None},
        {**GOOD, "ciphertext": ""},
        {**GOOD, "ciphertext": GOOD["ciphertext"][:-2]},
        {**GOOD, "ciphertext": GOOD["ciphertext"][:-1] + "G"},
        {**GOOD, "ciphertext": 12},
        {**GOOD, "ciphertext": GOOD["ciphertext"] * 2},
        {**GOOD, "key_kcv": ""},
        {**GOOD, "key_kcv": KCV[:4]},
        {**GOOD, "key_kcv": KCV + "00"},
        {**GOOD, "key_kcv": KCV[:-1]},
        {**GOOD, "key_kcv": "000000"},
        {**GOOD, "key_kcv": ["000000"]},
        {name: value for name, value in GOOD.items() if name != "mode"},
        {**GOOD, "mode": 10**400},
        {**GOOD, "mode": object()},
        {**GOOD, "mode": "\ud800"},
    ],
)
def test_a_body_that_is_no_envelope_is_refused(body: bytes | dict[str, Any]) -> None:
    refused(body)


@pytest.mark.parametrize("last", [b"\0", b"\x11", b"\xff", b"\2\1\2", b"\0" * 16, b"\x10" * 15])
def test_bad_padding_is_the_same_error(last: bytes) -> None:
    refused(bare_seal(b"x" * (32 - len(last)) + last))


def test_another_key_is_refused_by_its_kcv_before_anything_is_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError("something was decrypted")

    body = encode(chunked(cut(GZIP, 9)))
    monkeypatch.setattr(envelope, "Cipher", never)
    refused(encode(GOOD), key=OTHER)
    with pytest.raises(EnvelopeError):
        open_envelope(KEY, encode(GOOD), limit=LIMIT, kcv=aes_kcv(OTHER, 5))
    with pytest.raises(EnvelopeError):
        next(open_stream(OTHER, body, limit=LIMIT))


def test_an_envelope_tells_its_kcv_before_it_is_opened() -> None:
    parsed = envelope.parse(encode(GOOD))
    assert parsed.key_kcv == KCV
    assert GOOD["ciphertext"] not in repr(parsed)
    assert open_envelope(KEY, parsed, limit=100) == b'{"amount":1}'
    assert envelope.parse(seal(KEY, b"", os.urandom)).key_kcv is None


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_the_limit_is_exact(size: int, compress: bool) -> None:
    body = encode(seal(KEY, b"a" * size, os.urandom, compress=compress))
    assert open_envelope(KEY, body, limit=size) == b"a" * size
    if size:
        refused(body, limit=size - 1)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"", *cut(GZIP, 9)],
        [*cut(GZIP, 9), b""],
        cut(GZIP, 9)[:-1],
        cut(GZIP, 9)[1:],
        cut(GZIP, 9)[::-1],
        [*cut(GZIP, 9), b"more"],
        [*cut(GZIP, 9), GZIP],
        [GZIP + b"\0"],
        [GZIP + GZIP],
        [GZIP[:-1]],
        [GZIP[:-4]],
        [GZIP[:-8] + bytes(4) + GZIP[-4:]],
        [GZIP[:-4] + (399).to_bytes(4, "little")],
        [GZIP[:-4] + (401).to_bytes(4, "little")],
        [GZIP[:-4] + (2**32 - 1).to_bytes(4, "little")],
        [b"not gzip"],
        [zlib.compress(b"no header of gzip")],
        [b"\1", b"\2", b"\3"],
    ],
)
def test_chunks_that_are_not_one_whole_gzip_are_refused(pieces: list[bytes]) -> None:
    body = encode(chunked(pieces))
    refused(body)
    with pytest.raises(EnvelopeError):
        list(open_stream(KEY, body, limit=LIMIT))


@pytest.mark.parametrize(
    "changes",
    [
        {"content_encoding": None},
        {"content_encoding": "deflate"},
        {"mode": "ECB"},
        {"chunks": {}},
        {"chunks": ["00"]},
        {"chunks": [None]},
        {"chunks": [{**GOOD}]},
        {"ciphertext": "00"},
    ],
)
def test_a_chunked_envelope_has_the_documented_fields_alone(changes: dict[str, Any]) -> None:
    refused(encode(chunked(cut(GZIP, 9), **changes)))


def test_swapped_chunks_are_refused() -> None:
    pieces = cut(gzip.compress(os.urandom(10_000)), MAX_CHUNK)
    pieces[1], pieces[2] = pieces[2], pieces[1]
    refused(encode(chunked(pieces)))


def test_a_chunk_above_the_key_services_limit_is_refused() -> None:
    packed = gzip.compress(os.urandom(4000))
    assert open_envelope(KEY, encode(chunked(cut(packed, MAX_CHUNK))), limit=4000)
    refused(encode(chunked(cut(packed, MAX_CHUNK + 1))))


def test_too_many_chunks_and_too_large_a_body_are_refused_before_they_are_parsed() -> None:
    prefix = b'{"format":"TR31-DATA-CHUNKED","content_encoding":"gzip","mode":"CBC","chunks":['
    for hostile in (prefix + b"0," * 5_000_000 + b"0]}", b'"' + b"0" * envelope.MAX_BODY + b'"'):
        tracemalloc.start()
        try:
            refused(hostile)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000
    chunk = json.dumps({"ciphertext": "00" * 16, "initialization_vector": "00" * 16, "mode": "CBC"}).encode()
    refused(prefix + b",".join([chunk] * (MAX_CHUNKS + 1)) + b"]}")


def produced_until_refused(body: bytes, limit: int) -> int:
    got = 0
    try:
        for piece in open_stream(KEY, body, limit=limit):
            got += len(piece)
    except EnvelopeError:
        return got
    raise AssertionError("the stream ended well")


def test_a_bomb_is_refused_after_no_more_than_the_limit_was_produced() -> None:
    bomb = gzip.compress(bytes(200_000_000), mtime=0)
    lying = bomb[:-4] + (50_000).to_bytes(4, "little")
    for packed in (bomb, lying):
        for body in (encode(chunked(cut(packed, MAX_CHUNK))), encode(seal(KEY, packed, os.urandom))):
            if b"CHUNKED" not in body:
                body = body[:-1] + b',"content_encoding":"gzip"}'
            tracemalloc.start()
            try:
                refused(body, limit=100_000)
                got = produced_until_refused(body, 100_000)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert got == 100_000
            assert peak < 3_000_000


def test_a_large_document_is_inflated_into_one_buffer() -> None:
    plaintext = b"".join(b'{"aid":"%016X"},' % n for n in range(500_000))
    body = encode(seal_chunked(KEY, plaintext, os.urandom, KCV))
    tracemalloc.start()
    try:
        opened = open_envelope(KEY, body, limit=len(plaintext), kcv=KCV)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert opened == plaintext
    assert peak < len(plaintext) + 1_000_000


def test_the_size_at_the_end_may_be_spread_over_chunks() -> None:
    pieces = [GZIP[:-3], *cut(GZIP[-3:], 1)]
    assert open_envelope(KEY, encode(chunked(pieces)), limit=400) == gzip.decompress(GZIP)


def test_only_what_is_gzipped_can_be_a_stream() -> None:
    with pytest.raises(EnvelopeError):
        list(open_stream(KEY, encode(GOOD), limit=LIMIT))


# --- bytes that a stranger chose ----------------------------------------------------------------------------

WHOLE = encode(GOOD)
PACKED = encode(seal(KEY, b"0123456789" * 40, lambda n: bytes(n), kcv=KCV, compress=True))
CHUNKED = encode(seal_chunked(KEY, b"0123456789" * 40, lambda n: bytes(n), KCV, chunk=10))


def opens_or_is_refused(body: bytes, was: bytes) -> None:
    try:
        opened = open_envelope(KEY, body, limit=LIMIT, kcv=KCV)
    except EnvelopeError:
        return
    # CBC without a tag: a flipped bit may give another plaintext, never more of it and never another error.
    assert len(opened) <= len(was)


@given(st.sampled_from([WHOLE, PACKED, CHUNKED]), st.data())
def test_flipped_bits_and_cuts_end_in_the_one_error(body: bytes, data: st.DataObject) -> None:
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    opens_or_is_refused(bytes(changed), b"0123456789" * 40)
    refused(body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(max_size=400))
def test_noise_is_refused(body: bytes) -> None:
    refused(body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["CBC", "gzip", "00" * 16]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(["TR31-DATA", "TR31-DATA-CHUNKED"]),
    st.dictionaries(
        st.sampled_from(["ciphertext", "initialization_vector", "mode", "key_kcv", "content_encoding", "chunks"]),
        json_values,
    ),
)
def test_objects_of_almost_the_right_shape_are_refused(name: str, rest: dict[str, Any]) -> None:
    refused({"format": name, **rest})


@given(
    st.builds(
        lambda head, n, tail: (head * 3)[: 48 - len(tail)] + tail[:-1] + bytes([n]),
        st.binary(min_size=16, max_size=16),
        st.integers(0, 20),
        st.integers(0, 17).map(lambda n: bytes([n]) * 17) | st.binary(min_size=1, max_size=16),
    )
)
def test_padding_is_read_as_pkcs7_and_nothing_else(padded: bytes) -> None:
    """Against the library's own unpadder, as a padding oracle would ask."""
    unpadder = PKCS7(128).unpadder()
    try:
        expected = unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        refused(bare_seal(padded))
    else:
        assert open_envelope(KEY, bare_seal(padded), limit=100) == expected
