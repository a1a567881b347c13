"""Whom the host knows: merchants, devices, pairing codes, tokens and key sets, as rows of the ledger's file."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

PairingStatus = Literal["pending", "used", "expired", "none"]


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant's API client; ``sealed`` holds its secret."""

    client_id: str
    merchant_id: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Device:
    """A row of ``devices``; ``sealed`` holds the identity secret and the ZMK. Moments are milliseconds, or None."""

    device_id: str
    terminal_id: str
    client_id: str
    identity_key_id: str
    sealed: bytes
    identity_revoked: int = 0
    revoked: int = 0
    unclaimed: int = 0
    """A merchant had it and gave it up: it may pair again, and do nothing else."""
    bootstrapped_at: int | None = None
    claimed_at: int | None = None
    config_at: int | None = None
    parameters_at: int | None = None
    activated_at: int | None = None
    actions: str = ""
    """What its next heartbeat is told to do, separated by blanks."""

    @property
    def status(self) -> Literal["inactive", "claimed", "activated"]:
        """The protocol's word for how far it is."""
        if self.claimed_at is None:
            return "inactive"
        return "claimed" if self.activated_at is None else "activated"


@dataclass(frozen=True, slots=True)
class KeySetRow:
    """A row of ``key_sets``. ``state`` is live, superseded or revoked."""

    n: int
    key_set_id: str
    device_id: str
    mac_key_id: str
    issued_at: int
    expires_at: int
    state: str
    sealed: bytes

    def usable(self, now: int) -> bool:
        """Whether it still opens envelopes and checks signatures."""
        return self.state == "live" and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Token:
    """A client session (``owner`` is the merchant's client id) or an attestation (a device id)."""

    owner: str
    expires_at: int
    initiated: int


class Registry:
    """Reads and writes those rows; the caller holds the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute

    # --- merchants and devices --------------------------------------------------------------------------------

    def add_merchant(self, merchant: Merchant) -> None:
        """Enter a merchant."""
        self._run(
            "INSERT INTO merchants VALUES (?,?,?)", (merchant.client_id, merchant.merchant_id, merchant.sealed)
        )

    def merchant(self, client_id: str) -> Merchant | None:
        """The merchant with that API client."""
        found = self._run("SELECT * FROM merchants WHERE client_id=?", (client_id,)).fetchone()
        return Merchant(*found) if found else None

    def add_device(self, device: Device) -> None:
        """Enter a device that nobody has heard from."""
        self._run(
            "INSERT INTO devices (device_id, terminal_id, client_id, identity_key_id, sealed) VALUES (?,?,?,?,?)",
            (device.device_id, device.terminal_id, device.client_id, device.identity_key_id, device.sealed),
        )

    def device(self, device_id: str) -> Device | None:
        """The device, or None where it is unknown."""
        found = self._run("SELECT * FROM devices WHERE device_id=?", (device_id,)).fetchone()
        return Device(*found) if found else None

    def terminal(self, terminal_id: str) -> Device | None:
        """The device by its terminal id, or None where it is unknown."""
        found = self._run("SELECT * FROM devices WHERE terminal_id=?", (terminal_id,)).fetchone()
        return Device(*found) if found else None

    def bootstrapped(self, device_id: str, at: int) -> None:
        """The device has called for the first time."""
        self._run(
            "UPDATE devices SET bootstrapped_at=coalesce(bootstrapped_at,?) WHERE device_id=?", (at, device_id)
        )

    def took_config(self, device_id: str, at: int) -> None:
        """The device has fetched its configuration."""
        self._run("UPDATE devices SET config_at=? WHERE device_id=?", (at, device_id))

    def took_parameters(self, device_id: str, at: int) -> None:
        """The device has fetched the terminal parameters."""
        self._run("UPDATE devices SET parameters_at=? WHERE device_id=?", (at, device_id))

    def activated(self, device_id: str, at: int) -> None:
        """The device takes payments."""
        self._run("UPDATE devices SET activated_at=? WHERE device_id=?", (at, device_id))

    def set_actions(self, device_id: str, actions: str) -> None:
        """What the device's heartbeats are told to do from now on."""
        self._run("UPDATE devices SET actions=? WHERE device_id=?", (actions, device_id))

    def set_revoked(self, device_id: str, revoked: bool) -> None:
        """Block the device, or let it go on."""
        self._run("UPDATE devices SET revoked=? WHERE device_id=?", (revoked, device_id))

    def set_identity_revoked(self, device_id: str, revoked: bool) -> None:
        """Refuse the device's identity key, or accept it again."""
        self._run("UPDATE devices SET identity_revoked=? WHERE device_id=?", (revoked, device_id))

    def claim(self, device_id: str, at: int) -> None:
        """The merchant takes the device, and its pairing code is spent."""
        self._run("UPDATE devices SET claimed_at=?, unclaimed=0 WHERE device_id=?", (at, device_id))
        self._run("UPDATE pairing_codes SET used_at=? WHERE device_id=?", (at, device_id))

    def unclaim(self, device_id: str) -> None:
        """The merchant gives the device up: its tokens, key sets and pairing code go with it."""
        self._run(
            "UPDATE devices SET unclaimed=1, claimed_at=NULL, config_at=NULL, parameters_at=NULL, activated_at=NULL"
            " WHERE device_id=?",
            (device_id,),
        )
        self._run("DELETE FROM tokens WHERE owner=?", (device_id,))
        self._run("DELETE FROM pairing_codes WHERE device_id=?", (device_id,))
        self.end_key_sets(device_id, "revoked")

    # --- pairing codes ----------------------------------------------------------------------------------------

    def set_pairing_code(self, device_id: str, code: str, expires_at: int) -> bool:
        """Give the device a new code in place of any before; False when another device has that very code."""
        taken = self._run("SELECT device_id FROM pairing_codes WHERE code=?", (code,)).fetchone()
        if taken and taken[0] != device_id:
            return False
        self._run("INSERT OR REPLACE INTO pairing_codes VALUES (?,?,?,NULL)", (device_id, code, expires_at))
        return True

    def paired_device(self, code: str, now: int) -> str | None:
        """The device that shows this code: not used, not expired."""
        found = self._run(
            "SELECT device_id FROM pairing_codes WHERE code=? AND used_at IS NULL AND expires_at > ?", (code, now)
        ).fetchone()
        return found[0] if found else None

    def pairing_status(self, device_id: str, now: int) -> PairingStatus:
        """The protocol's word for the device's code."""
        found = self._run(
            "SELECT used_at, expires_at FROM pairing_codes WHERE device_id=?", (device_id,)
        ).fetchone()
        if found is None:
            return "none"
        if found[0] is not None:
            return "used"
        return "pending" if now < found[1] else "expired"

    # --- tokens -----------------------------------------------------------------------------------------------

    def add_token(self, kind: str, token: str, owner: str, expires_at: int) -> None:
        """Keep a token, as its SHA-256."""
        digest = sha256(token.encode()).digest()
        self._run("INSERT INTO tokens VALUES (?,?,?,?,0)", (digest, kind, owner, expires_at))

    def token(self, kind: str, token: str) -> Token | None:
        """What the token stands for, expired or not."""
        found = self._run(
            "SELECT owner, expires_at, initiated FROM tokens WHERE sha256=? AND kind=?",
            (sha256(token.encode()).digest(), kind),
        ).fetchone()
        return Token(*found) if found else None

    def live_tokens(self, owner: str, now: int) -> int:
        """How many unexpired tokens an owner has."""
        (count,) = self._run(
            "SELECT count(*) FROM tokens WHERE owner=? AND expires_at > ?", (owner, now)
        ).fetchone()
        return int(count)

    def expire_tokens(self, owner: str) -> None:
        """The time of all of an owner's tokens is over."""
        self._run("UPDATE tokens SET expires_at=0 WHERE owner=?", (owner,))

    def token_owner(self, token: str) -> str | None:
        """Whose it is, whatever it is for."""
        found = self._run("SELECT owner FROM tokens WHERE sha256=?", (sha256(token.encode()).digest(),)).fetchone()
        return found[0] if found else None

    def initiate(self, token: str) -> None:
        """The client session has its context."""
        self._run("UPDATE tokens SET initiated=1 WHERE sha256=?", (sha256(token.encode()).digest(),))

    def forget(self, now: int) -> None:
        """Drop expired tokens."""
        self._run("DELETE FROM tokens WHERE expires_at < ?", (now,))

    # --- key sets ---------------------------------------------------------------------------------------------

    def add_key_set(self, row: KeySetRow) -> None:
        """Enter a key set; its ``n`` is given by the ledger."""
        self._run(
            "INSERT INTO key_sets VALUES (NULL,?,?,?,?,?,?,?)",
            (row.key_set_id, row.device_id, row.mac_key_id, row.issued_at, row.expires_at, row.state, row.sealed),
        )

    def key_sets(self, device_id: str, limit: int = 64) -> list[KeySetRow]:
        """The device's key sets, the newest first."""
        rows = self._run("SELECT * FROM key_sets WHERE device_id=? ORDER BY n DESC LIMIT ?", (device_id, limit))
        return [KeySetRow(*row) for row in rows]

    def key_set_by_mac(self, device_id: str, mac_key_id: str) -> KeySetRow | None:
        """The device's key set with that MAC key."""
        found = self._run(
            "SELECT * FROM key_sets WHERE mac_key_id=? AND device_id=?", (mac_key_id, device_id)
        ).fetchone()
        return KeySetRow(*found) if found else None

    def end_key_sets(self, device_id: str, state: Literal["superseded", "revoked"], keep: int = 0) -> None:
        """Supersede or revoke the device's live key sets, but for the ``keep`` newest."""
        self._run(
            "UPDATE key_sets SET state=?1 WHERE device_id=?2 AND state='live' AND n NOT IN"
            " (SELECT n FROM key_sets WHERE device_id=?2 ORDER BY n DESC LIMIT ?3)",
            (state, device_id, keep),
        )
