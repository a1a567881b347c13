"""Drives a PN532 with libnfc, which is all its own: the serial device, then APDUs in hex; prints the answers."""

from __future__ import annotations

import ctypes
import sys


class Modulation(ctypes.Structure):
    """nfc_modulation: type and baud rate."""

    _fields_ = (("kind", ctypes.c_int), ("rate", ctypes.c_int))


TYPE_A_106 = Modulation(1, 1)
device, *apdus = sys.argv[1:]
library = ctypes.CDLL("libnfc.so.6")
library.nfc_open.restype = ctypes.c_void_p
context = ctypes.c_void_p()
library.nfc_init(ctypes.byref(context))
chip = ctypes.c_void_p(library.nfc_open(context, f"pn532_uart:{device}".encode()))
assert chip, "libnfc opened nothing"
assert library.nfc_initiator_init(chip) == 0
target = ctypes.create_string_buffer(4096)  # more than nfc_target takes
assert library.nfc_initiator_select_passive_target(chip, TYPE_A_106, None, ctypes.c_size_t(0), target) == 1
received = ctypes.create_string_buffer(300)
for apdu in apdus:
    command = bytes.fromhex(apdu)
    size = library.nfc_initiator_transceive_bytes(
        chip, command, ctypes.c_size_t(len(command)), received, ctypes.c_size_t(len(received)), 1000
    )
    print(received.raw[: max(size, 0)].hex())
library.nfc_close(chip)
library.nfc_exit(context)
