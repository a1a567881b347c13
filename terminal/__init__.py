"""Tillwright: a payment terminal in software.

from terminal import Amount, State, Terminal, load_settings
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terminal.money import Amount
    from terminal.payment import Outcome, Payment, State
    from terminal.settings import Settings
    from terminal.settings import load as load_settings
    from terminal.terminal import Terminal

__version__ = "0.1.0"

_WHERE = {
    "Amount": "terminal.money:Amount",
    "Outcome": "terminal.payment:Outcome",
    "Payment": "terminal.payment:Payment",
    "Settings": "terminal.settings:Settings",
    "State": "terminal.payment:State",
    "Terminal": "terminal.terminal:Terminal",
    "load_settings": "terminal.settings:load",
}

__all__ = ["Amount", "Outcome", "Payment", "Settings", "State", "Terminal", "load_settings", "__version__"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `till --version` needs none of them."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(module), attribute)
