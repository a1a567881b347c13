"""PIN blocks of ISO 9564-1:2017 format 4, under AES.

The PIN is bound to the PAN: the PIN field is enciphered, the PAN field is added to it, and the sum is enciphered
again (9.4.2). Eight random bytes in the PIN field make each block of the same PIN another one. Outside the secure
hardware of a certified device this is for simulation and laboratories only.
"""

from __future__ import annotations

from binascii import a2b_hex
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from terminal.clock import Random
from terminal.errors import CardDataError, CryptoError

BLOCK_LENGTH: Final = 16
_RANDOM_LENGTH: Final = 8


def iso4_pin_block(tpk: bytes, pin: str, pan: str, random: Random) -> bytes:
    """The 16 bytes of a format 4 PIN block: ``pin`` has 4 to 12 digits, ``pan`` 1 to 19.

    Raises CardDataError, which shows neither.
    """
    first = _encrypt(tpk, _pin_field(pin, random(_RANDOM_LENGTH)))
    return _encrypt(tpk, _xor(first, _pan_field(pan)))


def iso4_pin(tpk: bytes, block: bytes, pan: str) -> str:
    """The PIN in a block: what the other end does. A terminal's TPK has mode E and may not.

    Raises CryptoError where the block is not one of this key and PAN, CardDataError for a PAN that cannot be one.
    """
    pan_field = _pan_field(pan)
    if len(block) != BLOCK_LENGTH:
        raise CryptoError("a PIN block of format 4 has 16 bytes")
    field = _decrypt(tpk, _xor(_decrypt(tpk, block), pan_field)).hex().upper()
    length = int(field[1], 16)
    pin, fill = field[2 : 2 + length], field[2 + length : 16]
    if field[0] != "4" or not 4 <= length <= 12 or not pin.isdecimal() or fill.strip("A"):
        raise CryptoError("the PIN block does not open with this key and card number")
    return pin


def _pin_field(pin: str, salt: bytes) -> bytes:
    """Control 4, length, PIN, filled with A to eight bytes, then eight random ones (9.4.2.2)."""
    if not (pin.isascii() and pin.isdigit() and 4 <= len(pin) <= 12):
        raise CardDataError("the PIN must have 4 to 12 digits")
    return a2b_hex(f"4{len(pin):X}{pin}".ljust(16, "A")) + salt


def _pan_field(pan: str) -> bytes:
    """By how many digits the PAN is longer than 12, the PAN (zeros before a shorter one), zeros (9.4.2.3)."""
    if not (pan.isascii() and pan.isdigit() and len(pan) <= 19):
        raise CardDataError("the card number must have 1 to 19 digits")
    digits = pan.rjust(12, "0")
    return a2b_hex(f"{len(digits) - 12}{digits}".ljust(32, "0"))


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a) ^ int.from_bytes(b)).to_bytes(BLOCK_LENGTH)


# One block at a time, as the standard asks; ECB is the name of that, not a mode in which data is hidden.
def _encrypt(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(block) + encryptor.finalize()


def _decrypt(key: bytes, block: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()  # noqa: S305
    return decryptor.update(block) + decryptor.finalize()
