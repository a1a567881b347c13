from __future__ import annotations

import os

import psec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.crypto.pinblock import iso4_pin, iso4_pin_block
from terminal.errors import CardDataError, CryptoError

TPK = bytes(range(32))
pins = st.text("0123456789", min_size=4, max_size=12)
pans = st.text("0123456789", min_size=1, max_size=19)
keys = st.sampled_from([16, 24, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n))


def test_the_two_fields_are_those_of_the_standard() -> None:
    """ISO 9564-1:2017, 9.4.2.2 and 9.4.2.3, built here by hand and enciphered by psec's AES."""
    pin_field = bytes.fromhex("4412 34AA AAAA AAAA 0123 4567 89AB CDEF")
    pan_field = bytes.fromhex("4432 1987 6543 2109 8000 0000 0000 0000")
    first = psec.aes.encrypt_aes_ecb(TPK, pin_field)
    expected = psec.aes.encrypt_aes_ecb(TPK, bytes(a ^ b for a, b in zip(first, pan_field, strict=True)))
    salt = bytes.fromhex("0123456789ABCDEF")
    assert iso4_pin_block(TPK, "1234", "4321987654321098", lambda n: salt[:n]) == expected


@given(keys, pins, pans)
def test_psec_opens_our_blocks(key: bytes, pin: str, pan: str) -> None:
    block = iso4_pin_block(key, pin, pan, os.urandom)
    assert len(block) == 16
    assert psec.pinblock.decipher_pinblock_iso_4(key, block, pan) == pin


@given(keys, pins, pans)
def test_we_open_blocks_of_psec(key: bytes, pin: str, pan: str) -> None:
    assert iso4_pin(key, psec.pinblock.encipher_pinblock_iso_4(key, pin, pan), pan) == pin


def test_the_same_pin_makes_another_block_each_time() -> None:
    assert len({iso4_pin_block(TPK, "1234", "4761739001010119", os.urandom) for _ in range(50)}) == 50


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12a4", "١٢٣٤", "12 4", "-123"])
def test_a_pin_that_cannot_be_one_is_refused_and_not_shown(pin: str) -> None:
    with pytest.raises(CardDataError) as caught:
        iso4_pin_block(TPK, pin, "4761739001010119", os.urandom)
    assert str(caught.value) == "the PIN must have 4 to 12 digits"


@pytest.mark.parametrize("pan", ["", "12345678901234567890", "4761-739", "\uff14\uff17"])
def test_a_pan_that_cannot_be_one_is_refused_and_not_shown(pan: str) -> None:
    with pytest.raises(CardDataError) as caught:
        iso4_pin_block(TPK, "1234", pan, os.urandom)
    assert str(caught.value) == "the card number must have 1 to 19 digits"


@given(st.binary(max_size=40), pans)
def test_noise_is_no_pin_block(block: bytes, pan: str) -> None:
    """But once in some millions it is: sixteen nibbles have to be as they should."""
    try:
        pin = iso4_pin(TPK, block, pan)
    except CryptoError:
        return
    assert 4 <= len(pin) <= 12


def test_a_block_of_another_key_or_card_does_not_open() -> None:
    block = iso4_pin_block(TPK, "1234", "4761739001010119", lambda n: bytes(n))
    with pytest.raises(CryptoError):
        iso4_pin(TPK, block, "4761739001010127")
    with pytest.raises(CryptoError):
        iso4_pin(bytes(32), block, "4761739001010119")
    with pytest.raises(CryptoError):
        iso4_pin(TPK, block[:-1], "4761739001010119")
