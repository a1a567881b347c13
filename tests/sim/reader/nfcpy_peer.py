"""Drives a PN532 with nfcpy, which is all its own: the serial device, then APDUs in hex; prints what it finds."""

from __future__ import annotations

import sys

import nfc.clf
import nfc.clf.pn532
import nfc.clf.transport
import nfc.tag

device, *apdus = sys.argv[1:]
frontend = nfc.clf.ContactlessFrontend()
frontend.device = nfc.clf.pn532.init(nfc.clf.transport.TTY(device))  # its own search looks for /dev/tty*
target = frontend.sense(nfc.clf.RemoteTarget("106A"))
tag = nfc.tag.activate(frontend, target)
print(tag.identifier.hex())
for apdu in apdus:
    print(tag.transceive(bytes.fromhex(apdu)).hex())
print(tag.is_present)
frontend.close()
