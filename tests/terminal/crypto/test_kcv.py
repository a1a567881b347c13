"""Check values, against published vectors and against their definitions computed by other means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import psec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from terminal.crypto.kcv import aes_kcv, ecb_kcv, hmac_kcv, kcv_matches
from terminal.crypto.tdes import triple_des

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "tr31.json").read_text())["vectors"]

# psec still imports triple DES from where `cryptography` no longer wants it, and gives it short keys.
psec_warns = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning:psec.des"
)


def _aes_block(key: bytes, block: bytes) -> bytes:
    return Cipher(AES(key), ECB()).encryptor().update(block)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
def test_published_check_values(vector):
    key, kcv = bytes.fromhex(vector["key"]), vector["kcv"]
    if vector["block"][7] == "A":
        assert aes_kcv(key, len(kcv) // 2) == kcv
    else:
        assert ecb_kcv(key, len(kcv) // 2, algorithm="T") == kcv


def test_the_aes_check_value_is_a_cmac_by_nist_s_subkey():
    # NIST SP 800-38B, D.1 (AES-128): a message of one whole block is masked with K1, and ours is of zeros.
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    k1 = bytes.fromhex("FBEED618357133667C85E08F7236A8DE")
    assert aes_kcv(key, 5) == _aes_block(key, k1)[:5].hex().upper()


def test_the_legacy_check_value_is_the_head_of_cmac_s_first_step():
    # NIST SP 800-38B, D.1: CIPH_K(0) for AES-128. This is why it is never shown for a key of CMAC.
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    assert ecb_kcv(key, 5) == "7DF76B0C1AB899B33E42F047B91B546F"[:10]


def test_the_hmac_check_value_of_the_empty_key():
    # HMAC-SHA-256 of the empty message under the empty key: a known constant.
    assert hmac_kcv(b"", 5) == "B613679A08"


@given(st.binary(max_size=64), st.integers(3, 5))
def test_the_hmac_check_value_by_the_definition_in_rfc_2104(key, length):
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded)).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    assert hmac_kcv(key, length) == outer[:length].hex().upper()


@psec_warns
@given(st.sampled_from([16, 24]).flatmap(lambda n: st.binary(min_size=n, max_size=n)))
def test_the_legacy_check_value_of_triple_des_as_psec_makes_it(key):
    assert ecb_kcv(key, algorithm="T") == psec.des.generate_kcv(key, 3).hex().upper()


@pytest.mark.parametrize("length", [-1, 0, 1, 2, 6, 16])
@pytest.mark.parametrize("method", [aes_kcv, hmac_kcv, ecb_kcv])
def test_a_check_value_has_three_to_five_bytes(method, length):
    with pytest.raises(ValueError, match="3 to 5 bytes"):
        method(bytes(32), length)


@pytest.mark.parametrize("size", [0, 8, 15, 32])
def test_triple_des_takes_double_and_triple_length_only(size):
    with pytest.raises(ValueError, match="16 or 24 bytes"):
        triple_des(bytes(size))


@given(st.binary(min_size=32, max_size=32), st.integers(3, 5), st.booleans())
def test_a_check_value_of_any_length_and_case_matches(key, length, lower):
    expected = aes_kcv(key, length)
    assert kcv_matches(expected.lower() if lower else expected, aes_kcv(key, 5))


@given(st.binary(min_size=32, max_size=32), st.integers(3, 5), st.data())
def test_one_wrong_digit_does_not_match(key, length, data):
    expected = aes_kcv(key, length)
    at = data.draw(st.integers(0, len(expected) - 1))
    digit = data.draw(st.sampled_from("0123456789ABCDEF").filter(lambda digit: digit != expected[at]))
    assert not kcv_matches(expected[:at] + digit + expected[at + 1 :], aes_kcv(key, 5))


@given(st.text())
def test_no_text_from_outside_does_harm(text):
    assert kcv_matches(text, "01234567FF") == (text.upper() in {"012345", "01234567", "01234567FF"})


@pytest.mark.parametrize("expected", ["", "08", "0879", "08793", "08793E2", "08793E25AB00", "08793E25AB08793E25AB"])
def test_a_check_value_of_another_length_does_not_match(expected):
    assert not kcv_matches(expected, "08793E25AB")


def test_a_longer_check_value_than_we_can_make_does_not_match():
    assert not kcv_matches("08793E25AB", "08793E")


def test_letters_that_only_look_like_digits_do_not_match():
    assert not kcv_matches("\uff10\uff18\uff17\uff19\uff13E", "08793E25AB")
