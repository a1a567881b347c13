"""Envelopes and key blocks beside the bare primitives, and beside psec."""

from __future__ import annotations

import gzip
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import psec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from sim.host import parameters
from terminal.crypto import envelope, keyblock, keyblock_header, signature
from terminal.crypto.kcv import aes_kcv
from tests.bench.measure import Figure, compare

LIMIT = 64 * 1024 * 1024
LARGE = 50_000_000
"""Bytes of the large document. Its growth may be at most 4,000,000 above."""


def bare_encrypt(key: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
    """IV and ciphertext: AES-CBC with PKCS7 and nothing around it."""
    iv = os.urandom(16)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv, encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def bare_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """The reverse."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()


def sealing() -> Iterator[Figure]:
    """Seal 1 KiB, sign the bytes that travel, open them again."""
    key, mac_key, plaintext = os.urandom(32), os.urandom(32), os.urandom(1024)
    kcv = aes_kcv(key, 5)

    def ours() -> bytes:
        body = envelope.encode(envelope.seal(key, plaintext, os.urandom, kcv=kcv))
        signature.hmac_sha256(mac_key, body)
        return envelope.open_envelope(key, body, limit=2048, kcv=kcv)

    def bare() -> bytes:
        iv, ciphertext = bare_encrypt(key, plaintext)
        sealed = {
            "format": "TR31-DATA",
            "ciphertext": ciphertext.hex().upper(),
            "initialization_vector": iv.hex().upper(),
            "mode": "CBC",
            "key_kcv": kcv,
        }
        body = json.dumps(sealed).encode()
        hmac.digest(mac_key, body, "sha256")
        got = json.loads(body)
        return bare_decrypt(key, bytes.fromhex(got["initialization_vector"]), bytes.fromhex(got["ciphertext"]))

    assert ours() == bare() == plaintext
    about = "1 KiB sealed, signed and opened / the same primitives, hex and stdlib json bare"
    yield compare({"ours": ours, "bare": bare}).figure("envelope_1k", "ours", "bare", bound=1.25, about=about)


def unwrapping() -> Iterator[Figure]:
    """A TR-31 version D block unwrapped."""
    kbpk, key = os.urandom(32), os.urandom(32)
    block = keyblock.wrap(kbpk, keyblock_header.Header("D", "D0", "A", "B"), key, os.urandom)

    def ours() -> bytes:
        return keyblock.unwrap(kbpk, block)[1]

    def theirs() -> bytes:
        return bytes(psec.tr31.unwrap(kbpk, block)[1])

    assert ours() == theirs() == key
    yield compare({"ours": ours, "psec": theirs}).figure(
        "tr31_unwrap", "ours", "psec", bound=0.25, about="a TR-31 version D block unwrapped / psec"
    )


def opening() -> Iterator[Figure]:
    """Terminal parameters of the usual size opened, and the memory that it takes to open very large ones."""
    key = os.urandom(32)
    kcv = aes_kcv(key, 5)
    document = msgspec.json.encode(parameters.generate(os.urandom))
    body = envelope.encode(envelope.seal_chunked(key, document, os.urandom, kcv))
    # What is bare has it easy: its chunks are taken out of their JSON and hex before the clock starts.
    chunks = [
        (bytes.fromhex(chunk["initialization_vector"]), bytes.fromhex(chunk["ciphertext"]))
        for chunk in json.loads(body)["chunks"]
    ]

    def ours() -> bytes:
        return envelope.open_envelope(key, body, limit=LIMIT, kcv=kcv)

    def bare() -> bytes:
        return gzip.decompress(b"".join(bare_decrypt(key, iv, ciphertext) for iv, ciphertext in chunks))

    assert ours() == bare() == document
    about = (
        f"{len(document) // 1000} KB of parameters in {len(chunks)} chunks opened / decrypted and gunzipped bare"
    )
    yield compare({"ours": ours, "bare": bare}, rounds=101).figure(
        "parameters_200k", "ours", "bare", bound=1.3, about=f"{about}, from bytes: no JSON, no hex"
    )
    yield memory(LARGE)


def memory(size: int) -> Figure:
    """How far the memory of a process grows at most while it opens a chunked document of ``size`` bytes.

    Two fresh processes, and of the two figures the larger. VmHWM, the most that was ever resident, sees what C
    libraries take as well, and misses what fits into memory that was freed before. ``tracemalloc`` has it the other
    way round. ``ru_maxrss`` is no use here: across exec it keeps the peak of the process that forked.
    """
    key = os.urandom(32)
    unit = b'{"rid":"A000000003","index":"%s","modulus":"%s"},'
    document = bytearray()
    while len(document) < size:
        document += unit % (os.urandom(2).hex().encode(), os.urandom(24).hex().encode() * 10)
    del document[size:]
    with TemporaryDirectory(prefix="till-bench-") as folder:
        body = Path(folder) / "body"
        body.write_bytes(envelope.encode(envelope.seal_chunked(key, bytes(document), os.urandom, aes_kcv(key, 5))))
        grown = max(_growth(how, key, body, size) for how in ("resident", "traced"))
    about = (
        f"peak memory that opening {size // 1_000_000} MB of chunked parameters takes / the {size // 1_000_000} MB"
    )
    return Figure(
        name="parameters_50m_memory",
        ours=grown / 1e6,
        theirs=size / 1e6,
        unit="MB",
        bound=(size + 4_000_000) / size,
        about=f"{about}; less than 4 MB above the result",
    )


def _growth(how: str, key: bytes, body: Path, size: int) -> int:
    words = [sys.executable, "-c", _OPEN, how, key.hex(), str(body), str(size)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


_OPEN = """
import os, sys, tracemalloc
from pathlib import Path
from terminal.crypto import envelope
from terminal.crypto.kcv import aes_kcv

how, key, path, size = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

small = envelope.encode(envelope.seal_chunked(key, bytes(100_000), os.urandom, aes_kcv(key, 5)))
envelope.open_envelope(key, small, limit=100_000)  # what is set up once is no growth
body = Path(path).read_bytes()
if how == "traced":
    tracemalloc.start()
    opened = envelope.open_envelope(key, body, limit=size)
    grown = tracemalloc.get_traced_memory()[1]
else:
    before = resident()
    opened = envelope.open_envelope(key, body, limit=size)
    grown = resident() - before
assert len(opened) == size
print(grown)
"""
