"""``till keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from terminal.cli.common import Common
from terminal.cli.text import columns

if TYPE_CHECKING:
    from terminal.crypto.keystore import KeyFacts


@click.command()
@click.pass_obj
def keys(common: Common) -> None:
    """Show what is known of the keys: role, id, KCV, usage, algorithm and mode (X9.143). Never the keys."""
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load
    from terminal.clock import system_random
    from terminal.crypto.keystore import Keystore
    from terminal.crypto.vault import Vault
    from terminal.home import VAULT_FILE

    settings = load(common.home)
    with Vault.open(common.home / VAULT_FILE, secret_of(settings), random=system_random) as vault:
        held = Keystore(vault, system_random).facts()
    if common.json:
        for key in held:
            common.screen.result({"event": "key"} | _facts(key), ())
    rows: list[tuple[str, ...]] = [("role", "key id", "KCV", "usage", "algorithm", "mode", "key set")]
    rows += [tuple(value or "-" for value in _facts(key).values()) for key in held]
    common.screen.result({"event": "result", "keys": len(held), "exit_code": 0}, columns(rows))


def _facts(key: KeyFacts) -> dict[str, str | None]:
    return {
        "role": key.role.value,
        "key_id": key.key_id,
        "kcv": key.kcv,
        "usage": key.usage,
        "algorithm": key.algorithm,
        "mode": key.mode,
        "key_set_id": key.key_set_id,
    }
