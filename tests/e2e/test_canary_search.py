"""The search for canaries can fail: each is planted in each spelling, and found."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import quote

import pytest

from hw.pan import mask_pan
from terminal.crypto.kcv import aes_kcv
from tests.e2e.canaries import Canary, search
from tests.e2e.canary_day import COMPONENT, KNOWN, PAN, PASSPHRASE

SPELLINGS = {
    "as it is": lambda secret: secret,
    "backwards": lambda secret: secret[::-1] if secret.isascii() else secret,
    "hex": lambda secret: secret.hex().encode(),
    "HEX": lambda secret: secret.hex().upper().encode(),
    "hex, a nibble off": lambda secret: b"0" + secret.hex().encode(),
    "hex with colons": lambda secret: secret.hex(":").encode(),
    "hex with spaces": lambda secret: secret.hex(" ").encode(),
    "base64, first": lambda secret: base64.b64encode(secret),
    "base64, second": lambda secret: base64.b64encode(b"x" + secret),
    "base64, third": lambda secret: base64.b64encode(b"xx" + secret + b"x"),
    "base64, wrapped": lambda secret: base64.encodebytes(bytes(50) + secret),
    "base64, for URLs": lambda secret: b"?k=" + base64.urlsafe_b64encode(b"\xff\xff\xfe" + secret),
    "base64 of hex": lambda secret: base64.b64encode(secret.hex().encode()),
    "hex of base64": lambda secret: base64.b64encode(secret).hex().encode(),
    "base64 of base64": lambda secret: base64.b64encode(base64.b64encode(secret)),
    "repr": lambda secret: repr(secret).encode(),
    "repr in JSON": lambda secret: json.dumps(repr(secret)).encode(),
    "JSON": lambda secret: json.dumps(secret.decode("latin-1")).encode(),
    "URL": lambda secret: quote(secret).encode(),
    "list": lambda secret: repr(list(secret)).encode(),
    "beginning": lambda secret: secret[: 2 + len(secret) // 2] if len(secret) > 20 else secret,
    "end": lambda secret: secret[-2 - len(secret) // 2 :] if len(secret) > 20 else secret,
}
DIGITS = {
    "packed": lambda digits: bytes.fromhex(digits),
    "packed, a nibble off": lambda digits: bytes.fromhex(f"0{digits}F"),
    "packed, in hex": lambda digits: f"57 11 {digits}D2812".encode(),
    "packed, in base64": lambda digits: base64.b64encode(b"\x57" + bytes.fromhex(digits)),
    "in fours": lambda digits: " ".join(digits[at : at + 4] for at in range(0, len(digits), 4)).encode(),
    "with dashes": lambda digits: "-".join(digits[at : at + 4] for at in range(0, len(digits), 4)).encode(),
    "half masked": lambda digits: (digits[:12] + "*" * (len(digits) - 12)).encode(),
}
PLANTED = [*KNOWN, Canary("a key", bytes(range(200, 232))), Canary("a token", b"Zk3-_9fQwX81mPq0AbCd", whole=True)]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("canary", PLANTED, ids=lambda canary: canary.name)
def test_a_planted_canary_is_found_in_every_spelling(tmp_path, canary, spelling):
    file = tmp_path / "planted"
    file.write_bytes(b'{"at": 17, "x": "' + SPELLINGS[spelling](canary.secret) + b'", "level": "info"}\n')
    assert canary.name in search(file.read_bytes(), PLANTED)


@pytest.mark.parametrize("spelling", DIGITS)
@pytest.mark.parametrize("canary", [each for each in KNOWN if "card number" in each.name or each.name == "PIN"])
def test_planted_digits_are_found_in_every_spelling(canary, spelling):
    planted = b"\x00\x17" + DIGITS[spelling](canary.secret.decode()) + b"\x00"
    assert canary.name in search(planted, KNOWN)


def test_what_may_be_shown_is_no_find():
    shown = [mask_pan(PAN), aes_kcv(COMPONENT), "sha256", hashlib.sha256(PASSPHRASE.encode()).hexdigest()]
    assert search("\n".join(shown).encode(), PLANTED) == set()
