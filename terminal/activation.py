"""The levels of activation, as one literal table. ``climb`` takes the steps."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from terminal.machine import Machine


class Level(StrEnum):
    """How far the terminal has come."""

    UNPROVISIONED = "unprovisioned"
    PROVISIONED = "provisioned"
    BOOTSTRAPPED = "bootstrapped"
    PAIRING = "pairing"
    CLAIMED = "claimed"
    ATTESTED = "attested"
    KEYED = "keyed"
    CONFIGURED = "configured"
    PARAMETERISED = "parameterised"
    ACTIVATED = "activated"


class Step(StrEnum):
    """What moves a terminal from level to level."""

    PROVISIONED = "provisioned"
    BOOTSTRAPPED = "bootstrapped"
    CODE_ISSUED = "code_issued"
    CODE_EXPIRED = "code_expired"
    CLAIMED = "claimed"
    ATTESTED = "attested"
    KEYS_INSTALLED = "keys_installed"
    CONFIG_INSTALLED = "config_installed"
    PARAMETERS_INSTALLED = "parameters_installed"
    ACTIVATED = "activated"
    TOKEN_EXPIRED = "token_expired"
    KEYS_EXPIRED = "keys_expired"
    UNCLAIMED = "unclaimed"
    VERSION_TOO_OLD = "version_too_old"


ACTIVATION: Machine[Level, Step] = Machine(
    "activation",
    Level.UNPROVISIONED,
    {
        Level.UNPROVISIONED: {
            Step.PROVISIONED: Level.PROVISIONED,
        },
        Level.PROVISIONED: {
            Step.BOOTSTRAPPED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.BOOTSTRAPPED: {
            Step.CODE_ISSUED: Level.PAIRING,
            Step.CLAIMED: Level.CLAIMED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.PAIRING: {
            Step.CLAIMED: Level.CLAIMED,
            Step.CODE_EXPIRED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.CLAIMED: {
            Step.BOOTSTRAPPED: Level.CLAIMED,
            Step.ATTESTED: Level.ATTESTED,
            Step.UNCLAIMED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.ATTESTED: {
            Step.KEYS_INSTALLED: Level.KEYED,
            Step.TOKEN_EXPIRED: Level.CLAIMED,
            Step.UNCLAIMED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        # From here on the keys hold without the token: a new token changes no level.
        Level.KEYED: {
            Step.CONFIG_INSTALLED: Level.CONFIGURED,
            Step.BOOTSTRAPPED: Level.KEYED,
            Step.ATTESTED: Level.KEYED,
            Step.TOKEN_EXPIRED: Level.KEYED,
            Step.KEYS_EXPIRED: Level.CLAIMED,
            Step.UNCLAIMED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.CONFIGURED: {
            Step.PARAMETERS_INSTALLED: Level.PARAMETERISED,
            Step.BOOTSTRAPPED: Level.CONFIGURED,
            Step.ATTESTED: Level.CONFIGURED,
            Step.TOKEN_EXPIRED: Level.CONFIGURED,
            Step.KEYS_EXPIRED: Level.CLAIMED,
            Step.UNCLAIMED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.PARAMETERISED: {
            Step.ACTIVATED: Level.ACTIVATED,
            Step.BOOTSTRAPPED: Level.PARAMETERISED,
            Step.ATTESTED: Level.PARAMETERISED,
            Step.TOKEN_EXPIRED: Level.PARAMETERISED,
            Step.KEYS_EXPIRED: Level.CLAIMED,
            Step.UNCLAIMED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
        Level.ACTIVATED: {
            Step.BOOTSTRAPPED: Level.ACTIVATED,
            Step.ATTESTED: Level.ACTIVATED,
            Step.TOKEN_EXPIRED: Level.ACTIVATED,
            Step.KEYS_INSTALLED: Level.ACTIVATED,
            Step.CONFIG_INSTALLED: Level.ACTIVATED,
            Step.PARAMETERS_INSTALLED: Level.ACTIVATED,
            Step.KEYS_EXPIRED: Level.CLAIMED,
            Step.UNCLAIMED: Level.BOOTSTRAPPED,
            Step.VERSION_TOO_OLD: Level.PROVISIONED,
        },
    },
)

CALLS_LEFT = {Level.ATTESTED: 4, Level.KEYED: 3, Level.CONFIGURED: 2, Level.PARAMETERISED: 1, Level.ACTIVATED: 1}
"""Calls that need the attestation token from a level to the end."""

WAYS_BACK: Mapping[tuple[int, str], Step] = {
    (401, "4010"): Step.TOKEN_EXPIRED,
    (401, "4011"): Step.KEYS_EXPIRED,
    (403, "4031"): Step.UNCLAIMED,
    (426, "4260"): Step.VERSION_TOO_OLD,
}
"""What a refusal (HTTP status, code) says of the level at which it came."""
