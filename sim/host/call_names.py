"""The names of the calls, under which faults, peeks and tests know them."""

from __future__ import annotations

import re

CALLS: dict[str, tuple[str, str]] = {
    "charge": ("POST", "/pos/charge"),
    "refund": ("POST", "/pos/charge/{id}/refund"),
    "cancel": ("POST", "/pos/charge/{id}/cancel"),
    "reverse": ("POST", "/pos/charge/{id}/reverse"),
    "charge_lookup": ("GET", "/pos/charge/{id}"),
    "charge_search": ("GET", "/pos/charge"),
    "refund_lookup": ("GET", "/pos/refund/{id}"),
    "heartbeat": ("POST", "/pos/heartbeat"),
    "bootstrap": ("POST", "/pos/bootstrap"),
    "pairing_code": ("POST", "/pos/pairing-code"),
    "status": ("GET", "/pos/status"),
    "claim": ("POST", "/pos/claim"),
    "attest": ("POST", "/pos/attest"),
    "keys": ("POST", "/pos/keys"),
    "config": ("POST", "/pos/config"),
    "terminal_parameters": ("POST", "/pos/terminal-parameters"),
    "activate": ("POST", "/pos/activate"),
    "client_session": ("POST", "/client/session"),
    "auth_token": ("POST", "/auth/token"),
    "session_initiate": ("POST", "/session/initiate"),
    "health": ("GET", "/health/live"),
}
"""Every call of the VioPay POS API: method, and path with ``{id}`` where a charge or a refund is named."""

_PLAIN = {(method, path): name for name, (method, path) in CALLS.items() if "{" not in path}
_NAMED = tuple(
    (method, re.compile(path.replace("{id}", "[^/]+")), name)
    for name, (method, path) in CALLS.items()
    if "{" in path
)


def call_name(method: str, path: str) -> str | None:
    """Which of ``CALLS`` it is, or None."""
    plain = _PLAIN.get((method, path))
    if plain is not None:
        return plain
    return next((name for asked, form, name in _NAMED if asked == method and form.fullmatch(path)), None)


PAYMENT_CALLS = frozenset({"charge", "refund"})
"""The calls with an amount inside their envelope."""
