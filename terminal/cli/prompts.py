"""What a person is asked for. Secrets are not echoed, and never asked for where nobody sits at the keys."""

from __future__ import annotations

import getpass
import os
import sys
import warnings

from terminal.crypto.ceremony import Component, combine_components, confirm_component, parse_component
from terminal.crypto.vault import Passphrase, Secret
from terminal.errors import KeystoreError, SettingsError
from terminal.home import find_secret
from terminal.settings import Settings

LONGEST = 1024
"""Characters of an answer."""
TRIES = 3
"""How often a component or its check value may be mistyped."""


def someone_is_there() -> bool:
    """Whether stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask_hidden(what: str, *, otherwise: str) -> str:
    """A secret, typed and not echoed. Raises SettingsError, with ``otherwise`` as advice, without a terminal."""
    _require_someone(what, otherwise)
    try:
        with warnings.catch_warnings():
            # Where the echo cannot be turned off, getpass would go on with a warning.
            warnings.simplefilter("error", getpass.GetPassWarning)
            answer = getpass.getpass(f"{what}: ")
    except (EOFError, getpass.GetPassWarning):
        raise SettingsError(f"{what}: it was not given", advice=otherwise) from None
    return answer[:LONGEST]


def ask(what: str, *, otherwise: str) -> str:
    """What may be seen, typed. Raises SettingsError, with ``otherwise`` as advice, without a terminal."""
    _require_someone(what, otherwise)
    sys.stderr.write(f"{what}: ")
    sys.stderr.flush()
    return read_line(what, otherwise=otherwise)


def read_line(what: str, *, otherwise: str) -> str:
    """The next line of stdin. Raises SettingsError at its end."""
    line = sys.stdin.readline(LONGEST)
    if not line:
        raise SettingsError(f"{what}: it was not given", advice=otherwise)
    return line.strip()


def secret_of(settings: Settings) -> Secret:
    """What opens the vault of this home: found where it may be without asking, else a passphrase, asked for.

    Raises SettingsError where nobody can be asked.
    """
    found = find_secret(settings, os.environ)
    return found or Passphrase(ask_hidden("Passphrase", otherwise=_GIVE_SECRET))


def new_secret(settings: Settings) -> Secret:
    """What is to open a new vault: as ``secret_of``, but a passphrase is asked for twice."""
    if found := find_secret(settings, os.environ):
        return found
    passphrase = Passphrase(ask_hidden("New passphrase", otherwise=_GIVE_SECRET))
    if not passphrase.is_text(ask_hidden("The same again", otherwise=_GIVE_SECRET)):
        raise KeystoreError("the two passphrases differ", advice="Type the same one twice.")
    return passphrase


def ceremony(count: int) -> tuple[tuple[Component, ...], str]:
    """``count`` components of a ZMK, each checked against its KCV at once, and the KCV of the whole.

    Raises KeystoreError when something was mistyped ``TRIES`` times, SettingsError without a terminal.
    """
    components: tuple[Component, ...] = ()
    for number in range(1, count + 1):
        components += (_component(number, components),)
    for left in reversed(range(TRIES)):
        kcv = ask("KCV of the whole ZMK", otherwise=_CEREMONY)
        try:
            combine_components(components, kcv)
        except KeystoreError as error:
            if not left:
                raise
            _note(str(error))
        else:
            break
    _note("the check value of the whole matches")
    return components, kcv


def _component(number: int, earlier: tuple[Component, ...]) -> Component:
    for left in reversed(range(TRIES)):
        try:
            # What was typed has no name here: a traceback that shows locals is no place for it. And it is a
            # component before the KCV is asked for: whoever is a prompt ahead must not type one where it shows.
            typed = parse_component(
                number,
                ask_hidden(f"Component {number} (64 hex digits, not shown)", otherwise=_CEREMONY),
                earlier,
            )
            component = confirm_component(number, typed, ask(f"KCV of component {number}", otherwise=_CEREMONY))
        except KeystoreError as error:
            if not left:
                raise
            _note(str(error))
        else:
            break
    _note(f"component {number}: its check value matches")
    return component


def _require_someone(what: str, otherwise: str) -> None:
    if not someone_is_there():
        raise SettingsError(f"{what}: nobody can be asked, stdin is not a terminal", advice=otherwise)


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


_GIVE_SECRET = "Set TILL_PASSPHRASE, or give a credentials file (`till provision --credentials FILE`)."
_CEREMONY = "Run it at a terminal, where each component can be typed by the one who holds it."
