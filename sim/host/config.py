"""What may be set on the simulated host. Durations are in seconds, sizes in bytes."""

from __future__ import annotations

import msgspec

from terminal.crypto.signature import Scheme


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings, with the values that the VioPay POS API documents where it documents any."""

    min_supported_version: str = "0.1.0"
    """A User-Agent with a lower version is refused with 426."""
    signature_scheme: Scheme = Scheme.PREFIXED
    """What a payment call's HMAC is computed over: see ``terminal.crypto.signature``."""
    offers_lookup: bool = True
    """Whether ``GET /pos/charge``, ``GET /pos/charge/{id}`` and ``GET /pos/refund/{id}`` exist."""

    pairing_code_life: int = 300
    token_life: int = 300
    """For client sessions and for attestation tokens."""
    key_set_life: int = 24 * 3600
    """A day: long enough that a key set lasts from opening to closing time, short enough that it rotates."""
    rotate_before: int = 3600
    """A heartbeat under a key set with less than this left is told to ``rotate_keys``."""
    timestamp_past: int = 300
    timestamp_ahead: int = 60
    idempotency_life: int = 24 * 3600
    """How long the host remembers an idempotency key."""
    settle_after: int | None = None
    """A charge this old is settled and can no longer be cancelled; None: only ``POST /sim/settle`` settles."""

    slow_answer: int = 8
    """Outcome 08: how long its answer is held back."""
    pending_life: int = 5
    """Outcome 40: how long it stays pending."""
    refund_fails_after: int = 60
    """Outcome 45: how long a refund of it looks well."""

    max_body: int = 64 * 1024
    """Of a request, as it travels."""
    max_control_body: int = 1024 * 1024
    """The same under ``/sim/``."""
    max_plaintext: int = 2047
    """Of a request's opened envelope: the host's key service takes 2,048 with the padding."""
    max_header: int = 4096
    """Characters of one header's value."""
    max_live_tokens: int = 1000
    """Of one merchant or one device; beyond that the answer is 429."""
    max_live_key_sets: int = 32
    """Of one device; beyond that the oldest is superseded."""
    max_exchanges: int = 20_000
    """Kept in memory for ``GET /sim/exchanges``; the oldest go first."""
