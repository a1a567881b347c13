"""The live guard: what a terminal without certified hardware may not do against a host that is not a simulator.

Clear card data from a reader, a PIN typed on a keyboard, a PIN key in software and a ZMK that came in the clear
are for simulators, and all but the last for laboratories. PCI PIN and PCI DSS allow none of them in a shop.
"""

from __future__ import annotations

from collections.abc import Mapping

from terminal.crypto.policy import Role
from terminal.errors import LiveGuardError
from terminal.settings import Settings

LAB_SETTING = "lab.clear_card_data_on_live_host"

TEST_PANS = frozenset(
    {
        # Published by the networks and processors for testing; no account stands behind them.
        "4111111111111111",  # Visa
        "4012888888881881",
        "4242424242424242",
        "4761739001010119",  # Visa, EMV test cards
        "4761739001010010",
        "5555555555554444",  # Mastercard
        "5105105105105100",
        "5413330089010012",  # Mastercard, M/Chip test cards
        "5413330089600010",
        "2223003122003222",
        "378282246310005",  # American Express
        "371449635398431",
        "6011111111111117",  # Discover
        "6011000990139424",
        "3530111333300000",  # JCB
        "3566002020360505",
        "30569309025904",  # Diners Club
        "38520000023237",
        "6304939304310009610",  # Maestro
    }
)


ZMK_ENTRY = "zmk_entry"
"""The fact of the vault that says how the ZMK came in: CLEAR or by CEREMONY."""
CLEAR = "clear"
CEREMONY = "ceremony"


def check_zmk(settings: Settings, facts: Mapping[str, str]) -> None:
    """Raise LiveGuardError where the ZMK came in the clear and the host is not a simulator on this machine.

    Checked whenever a terminal is opened: the host's URL is a setting, and may have changed since.
    """
    if facts.get(ZMK_ENTRY) != CEREMONY and not settings.host.loopback:
        raise LiveGuardError(
            f"the ZMK of this terminal came in the clear, and so is for a simulator, not for {settings.host.url}",
            advice="Provision a new home for this host, with the ZMK entered as components.",
        )


def check_reader(settings: Settings, *, encrypts: bool) -> None:
    """Raise LiveGuardError, before a shopper is asked for a card, for a reader that does not encrypt.

    Readers that encrypt by themselves are the only class that may take live payments; whether one is certified
    (PCI PTS with SRED) is the merchant's to know.
    """
    if not (encrypts or settings.host.loopback or settings.lab.clear_card_data_on_live_host):
        check_card(settings, "")


def check_card(settings: Settings, pan: str) -> None:
    """Raise LiveGuardError where card data came in the clear, however, and may not be used with this host."""
    _check(settings, "card data in the clear", pan)


def check_pin(settings: Settings, pan: str) -> None:
    """Raise LiveGuardError where a PIN was typed on a keyboard and may not be used with this host."""
    _check(settings, "a PIN typed on a keyboard", pan)


def not_in_software(settings: Settings) -> frozenset[Role]:
    """The keys of a key set that may be checked but not kept: the TPK, but for a simulator or a laboratory."""
    allowed = settings.host.loopback or settings.lab.clear_card_data_on_live_host
    return frozenset() if allowed else frozenset({Role.TPK})


def _check(settings: Settings, what: str, pan: str) -> None:
    if settings.host.loopback:
        return
    if not settings.lab.clear_card_data_on_live_host:
        raise LiveGuardError(
            f"{what} may not be used with {settings.host.url}",
            advice=f"Use a reader that encrypts; in a laboratory, with test cards, set {LAB_SETTING}.",
        )
    if pan not in TEST_PANS:
        raise LiveGuardError(
            f"{what} may be used with {settings.host.url} for published test cards only, and this is none",
            advice="Use one of the networks' published test numbers.",
        )
