"""Key sets as a host makes them, for tests of what takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from terminal.crypto.kcv import aes_kcv, hmac_kcv
from terminal.crypto.keyblock import wrap
from terminal.crypto.keyblock_header import Header, OptionalBlock
from terminal.crypto.keystore import PARENTS, Role, WrappedKey, WrappedKeySet

NOW = datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC)
DAY = timedelta(days=1)

HEADERS = {
    Role.TMK: Header("D", "K1", "A", "D"),
    Role.KEK: Header("D", "K1", "A", "D"),
    Role.MSK: Header("D", "D0", "A", "B"),
    Role.TPK: Header("D", "P0", "A", "E"),
    Role.TDK: Header("D", "D0", "A", "E"),
    Role.MAC: Header("D", "M7", "H", "G", blocks=(OptionalBlock("HM", "21"),)),
}


class HostKeys:
    """The clear keys that a host has, and the answer to ``POST /pos/keys`` that it makes of them."""

    def __init__(self, zmk: bytes, *, headers: Mapping[Role, Header] = HEADERS) -> None:
        self.headers = dict(headers)
        self.keys = {Role.ZMK: zmk, **{role: os.urandom(32) for role in PARENTS}}

    def kcv(self, role: Role, length: int = 3) -> str:
        of = hmac_kcv if role is Role.MAC else aes_kcv
        return of(self.keys[role], length)

    def wrapped(self, role: Role, *, under: Role | None = None, **changes: Any) -> WrappedKey:
        parent = self.keys[under or PARENTS[role]]
        block = wrap(parent, self.headers[role], self.keys[role], os.urandom)
        return replace(WrappedKey(f"{role}-1", block, self.kcv(role), f"the {role}"), **changes)

    def answer(
        self, key_set_id: str = "ks-1", *, expires_at: datetime = NOW + DAY, **keys: WrappedKey
    ) -> WrappedKeySet:
        """The whole set; ``tpk=...`` puts another key in that one's place."""
        made = {role: keys.get(role) or self.wrapped(role) for role in PARENTS}
        return WrappedKeySet(key_set_id, NOW, expires_at, made)
