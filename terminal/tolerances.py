"""The tolerances of the settings, by their names."""

from __future__ import annotations

from terminal.crypto import policy
from terminal.crypto.keyblock_header import Tolerance
from terminal.errors import SettingsError
from terminal.settings import Settings


def tolerances(settings: Settings) -> tuple[Tolerance, policy.Tolerated]:
    """The named tolerances of ``keys.tolerate``; raises SettingsError for a name that is none."""
    blocks, keys = Tolerance.STRICT, policy.DEFAULT
    for name in settings.keys.tolerate:
        if name.upper() in Tolerance.__members__:
            blocks |= Tolerance[name.upper()]
        elif name.upper() in policy.Tolerated.__members__:
            keys |= policy.Tolerated[name.upper()]
        else:
            known = sorted(n.lower() for n in (*Tolerance.__members__, *policy.Tolerated.__members__))
            raise SettingsError(f"keys.tolerate: {name!r} is none of {', '.join(known)}")
    return blocks, keys
