"""What a terminal is configured with: the document of ``POST /pos/config``."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from sim.host.registry import Device

MERCHANT_NAME = "Tillwright Test Merchant"


def terminal_config(device: Device, merchant_id: str) -> dict[str, Any]:
    """The configuration of a coffee bar in Athens, the same whenever the device asks.

    Amounts are strings in minor units of the location's currency.
    """
    merchant_key = sha256(f"merchant key of {merchant_id}".encode()).hexdigest()[:32]
    return {
        "terminal": {"terminal_id": device.terminal_id, "device_id": device.device_id},
        "merchant": {
            "merchant_id": merchant_id,
            "name": MERCHANT_NAME,
            "merchant_key": f"mk_{merchant_key}",
            "category_code": "5814",
            "tip_info": {"enabled": True, "percentages": [5, 10, 15]},
            "tax_info": {"vat_id": "EL123456789", "rate": "24"},
            "surcharge_info": {"enabled": False},
        },
        "location": {
            "name": "Syntagma",
            "address": {"street": "Ermou 1", "city": "Athina", "postal_code": "10563", "country": "GR"},
            "timezone": "Europe/Athens",
            "country": "GR",
            "currency": "EUR",
        },
        "emv": {
            "aids": [
                "A0000000031010", "A0000000032010", "A0000000041010", "A0000000043060", "A00000002501",
                "A0000000651010", "A0000001523010",
            ],
            "terminal_capabilities": "60D8C8",
            "additional_capabilities": "F000F0A001",
            "terminal_type": "25",
        },
        "security": {
            "pin_required": True,
            "contactless_limit": "5000",
            "cvm_limit": "2500",
            "fallback_allowed": True,
            "offline": {
                "allowed": True, "max_amount": "2000", "max_total": "20000", "max_count": 20, "max_age_sec": 86400,
            },
        },
        "branding": {"theme": "dark", "logo_url": None},
        "intervals": {"heartbeat_sec": 60, "update_check_sec": 3600},
    }  # fmt: skip
