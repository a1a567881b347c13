"""Answers as the VioPay POS API gives them, with nothing wrong."""

from __future__ import annotations

import base64

CHARGE = {
    "id": "ch_abc123def456",
    "status": "approved",
    "amount": {"value": "1250", "currency": "EUR"},
    "reference": "order-17",
    "authorization_code": "A1B2C3",
    "response_code": "00",
    "message": "",
    "created_at": "2025-12-13T14:25:30Z",
}
REFUND = {
    "id": "rf_1",
    "charge_id": "ch_abc123def456",
    "status": "approved",
    "amount": {"value": "500", "currency": "EUR"},
    "created_at": "2025-12-13T14:25:30Z",
}
CANCEL = {"id": "ch_abc123def456", "status": "canceled", "canceled_at": "2025-12-13T14:25:30Z"}
KEY = {"key_id": "k", "key_block": base64.b64encode(b"D0016").decode(), "usage": "prose", "kcv": "ABCDEF"}
KEY_SET = {
    "key_set": {"key_set_id": "ks-1", "issued_at": "2025-12-13T14:25:30Z", "expires_at": "2026-12-13T14:25:30Z"},
    "transport": {"format": "TR31", "encryption": "AES-256", "wrapped_under": "kek"},
    "keys": dict.fromkeys(("tmk", "kek", "msk", "tpk", "tdk", "mac"), KEY),
}
