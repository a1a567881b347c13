"""The EMV data objects that the terminal reads or says (EMV 4.3 Book 3, annex A; EMV Contactless Book A)."""

from __future__ import annotations

from enum import IntEnum


class Tag(IntEnum):
    """A tag, by what it holds. ``title`` is its name in sentences."""

    FCI = 0x6F
    FCI_PROPRIETARY = 0xA5
    FCI_DISCRETIONARY = 0xBF0C
    RECORD = 0x70
    DIRECTORY_ENTRY = 0x61
    AID = 0x4F
    DF_NAME = 0x84
    LABEL = 0x50
    PRIORITY = 0x87
    DIRECTORY_SFI = 0x88
    PDOL = 0x9F38

    OPTIONS_1 = 0x80
    OPTIONS_2 = 0x77
    COMMAND_TEMPLATE = 0x83
    INTERCHANGE_PROFILE = 0x82
    FILE_LOCATOR = 0x94

    TRACK_2 = 0x57
    PAN = 0x5A
    EXPIRATION_DATE = 0x5F24
    SERVICE_CODE = 0x5F30
    PAN_SEQUENCE = 0x5F34

    AMOUNT = 0x9F02
    COUNTRY = 0x9F1A
    CURRENCY = 0x5F2A
    EXPONENT = 0x5F36
    DATE = 0x9A
    TIME = 0x9F21
    TRANSACTION_TYPE = 0x9C
    UNPREDICTABLE_NUMBER = 0x9F37
    TERMINAL_QUALIFIERS = 0x9F66
    TERMINAL_TYPE = 0x9F35
    CAPABILITIES = 0x9F33
    ADDITIONAL_CAPABILITIES = 0x9F40

    @property
    def title(self) -> str:
        """As ``PAN sequence``."""
        return self.name.replace("_", " ").lower().replace("pan", "PAN").replace("fci", "FCI")
