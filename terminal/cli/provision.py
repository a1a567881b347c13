"""``till provision``."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from terminal import home as terminal_home
from terminal import settings as settings_file
from terminal.cli.common import Common
from terminal.cli.prompts import ceremony, new_secret
from terminal.clock import system_random
from terminal.errors import KeystoreError, SettingsError

LARGEST_DOCUMENT = 64 * 1024
"""Bytes of a device document."""


@click.command()
@click.option(
    "--from",
    "source",
    type=click.File("rb"),
    required=True,
    metavar="FILE",
    help="The device document; - is stdin.",
)
@click.option("--host", "url", required=True, metavar="URL", help="The host's URL.")
@click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of at least 32 random bytes that opens the keystore, in place of a passphrase.",
)
@click.option(
    "--zmk-components",
    type=click.IntRange(2, 3),
    metavar="2|3",
    help="Enter the ZMK as so many components, each with its KCV.",
)
@click.option("--reader", metavar="URL", help="The card reader, as magstripe:///dev/ttyUSB0?baud=9600.")
@click.pass_obj
def provision(
    common: Common,
    source: BinaryIO,
    url: str,
    credentials: Path | None,
    zmk_components: int | None,
    reader: str | None,
) -> None:
    """Give this terminal its identity and its ZMK.

    The device document is what the host's operator hands over (the simulator: POST /sim/devices). A ZMK in the
    clear is accepted from a simulator on this machine only; from anyone else it comes as components. What opens
    the keystore is a credentials file, else TILL_PASSPHRASE (others of the same user can read an environment),
    else a passphrase that is asked for twice.
    """
    document = _document(source)
    settings_file.check_url(url)
    if credentials and not credentials.exists():
        raise click.BadParameter(f"there is no {str(credentials)!r}", param_hint="--credentials")
    if reader:
        from hw.reader import open_reader

        open_reader(reader)  # refuses what names none, before anything is made
    if (common.home / terminal_home.VAULT_FILE).exists():
        raise KeystoreError(
            f"{common.home} holds a terminal already", advice="Take another --home, or move this one away."
        )
    settings = settings_file.load(common.home)
    credentials = credentials.absolute() if credentials else None
    if credentials:
        settings = msgspec.structs.replace(settings, credentials_file=str(credentials))
    secret = new_secret(settings)
    components, zmk_kcv = ceremony(zmk_components) if zmk_components else ((), "")
    terminal_home.provision(
        common.home,
        document,
        url,
        secret,
        random=system_random,
        components=components,
        zmk_kcv=zmk_kcv,
        credentials_file=credentials,
        reader=reader,
    )
    facts = {
        "event": "result",
        "level": "provisioned",
        "device_id": document.device_id,
        "terminal_id": document.terminal_id,
        "host": url,
        "home": str(common.home),
        "exit_code": 0,
    }
    told = f"{document.device_id} ({document.terminal_id}) is provisioned in {common.home}. Next: till activate"
    common.screen.result(facts, [told])


def _document(source: BinaryIO) -> terminal_home.DeviceDocument:
    text = source.read(LARGEST_DOCUMENT + 1)
    refused = f"the device document is longer than {LARGEST_DOCUMENT} bytes"
    if len(text) <= LARGEST_DOCUMENT:
        try:
            return terminal_home.parse_document(text)
        except SettingsError as error:
            refused = str(error)
    del text  # a traceback that shows locals is no place for it
    raise SettingsError(
        f"{source.name}: {refused}",
        advice="Give --from the file that the host's operator has handed over for this device.",
    )
