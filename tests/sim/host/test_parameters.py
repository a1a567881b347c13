from __future__ import annotations

import gzip
from hashlib import sha1

import msgspec

from sim.host.parameters import generate
from sim.seed import seeded


def test_realistic_in_size_and_shape() -> None:
    parameters = generate(seeded(7))
    text = msgspec.json.encode(parameters)
    assert 180_000 < len(text) < 220_000
    assert 14_000 < len(gzip.compress(text)) < 20_000
    assert list(parameters)[:6] == ["version", "acquirers", "aids", "capks", "contact", "contactless"]
    for aid in parameters["aids"]:
        assert 5 <= len(bytes.fromhex(aid["aid"])) <= 16
        assert all(len(bytes.fromhex(aid[f"tac_{name}"])) == 5 for name in ("default", "denial", "online"))
    for key in parameters["capks"]:
        modulus = bytes.fromhex(key["modulus"])
        assert 128 <= len(modulus) <= 248
        assert modulus[0] & 0x80
        assert modulus[-1] & 1
        hashed = bytes.fromhex(key["rid"] + key["index"]) + modulus + bytes.fromhex(key["exponent"])
        assert key["hash"] == sha1(hashed).hexdigest().upper()


def test_made_from_the_seed() -> None:
    assert generate(seeded(7)) == generate(seeded(7))
    assert generate(seeded(7)) != generate(seeded(8))
