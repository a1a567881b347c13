"""A terminal's home: the folder that holds all its state, how it is made, and what opens it.

settings.toml   what a person may set
vault           identity, keys, activation, configuration: sealed
journal.db      every payment
journal.keys    what opens the sealed requests of open payments
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import msgspec

from terminal import guard, journal_swap
from terminal import settings as settings_file
from terminal.climb import RECORD, provisioned_record
from terminal.clock import Random
from terminal.crypto import vault_file
from terminal.crypto.ceremony import Component, combine_components
from terminal.crypto.keystore import Keystore
from terminal.crypto.vault import CredentialFile, Draft, Passphrase, Records, Secret, Vault
from terminal.disk import REAL, Disk
from terminal.errors import JournalError, KeystoreError, SettingsError
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.journal_file import is_blank
from terminal.settings import Settings

VAULT_FILE = vault_file.FILE_NAME
CREDENTIAL_NAME = "tillwright"
"""The systemd credential that opens the vault of an unattended terminal."""
JOURNAL_ID = "journal_id"


class Identity(msgspec.Struct, frozen=True):
    """The device's identity with the host; ``secret`` is base64."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"Identity(key_id={self.key_id!r})"


class ClearZmk(msgspec.Struct, frozen=True):
    """A zone master key in the clear: from a simulator only."""

    key: str
    kcv: str

    def __repr__(self) -> str:
        return f"ClearZmk(kcv={self.kcv!r})"


class DeviceDocument(msgspec.Struct, frozen=True):
    """What the host's operator hands over for one device. Fields that are not the terminal's are ignored."""

    device_id: str
    terminal_id: str
    identity: Identity
    zmk: ClearZmk | None = None


def parse_document(text: bytes) -> DeviceDocument:
    """The device document; raises SettingsError naming the field, never its value."""
    try:
        return msgspec.json.decode(text, type=DeviceDocument)
    except msgspec.ValidationError as error:
        problem, _, field = str(error).partition(" - at ")
        refused = f"the device document: {problem} {field}".rstrip()
    except (msgspec.DecodeError, UnicodeDecodeError):
        refused = "the device document is not JSON"
    del text  # a traceback that shows locals is no place for it
    raise SettingsError(refused)


def find_secret(settings: Settings, environ: Mapping[str, str]) -> Secret | None:
    """What opens the vault, where it can be had without asking: None means ask for a passphrase.

    In this order: the setting ``credentials_file``, a systemd credential named ``tillwright``, and
    ``TILL_PASSPHRASE`` (for laptops and tests: other processes of the same user can read an environment).
    """
    if settings.credentials_file:
        return CredentialFile(Path(settings.credentials_file))
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / CREDENTIAL_NAME
        if path.exists():
            return CredentialFile(path)
    if passphrase := environ.get("TILL_PASSPHRASE"):
        return Passphrase(passphrase)
    return None


def provision(
    home: Path,
    document: DeviceDocument,
    url: str,
    secret: Secret,
    *,
    random: Random,
    components: tuple[Component, ...] = (),
    zmk_kcv: str = "",
    credentials_file: Path | None = None,
    reader: str | None = None,
    disk: Disk = REAL,
) -> None:
    """Give a terminal its identity and its ZMK. The vault comes last, whole: with it the terminal is provisioned.

    The ZMK comes as two or three components and the KCV of the whole; a clear one in the document is accepted
    from a simulator on loopback only. Raises SettingsError, KeystoreError or CryptoError; a call that raised
    can be made again.
    """
    settings_file.check_url(url)
    if (home / VAULT_FILE).exists():
        raise KeystoreError(
            f"{home} holds a terminal already", advice="Take another --home, or move this one away."
        )
    zmk = _zmk(document, url, components, zmk_kcv)
    journal_id = random(16).hex()
    entered = guard.CEREMONY if components else guard.CLEAR
    draft = Draft(Records(), {JOURNAL_ID: journal_id, "level": "provisioned", guard.ZMK_ENTRY: entered})
    Keystore.provision(
        draft,
        device_id=document.device_id,
        terminal_id=document.terminal_id,
        identity_key_id=document.identity.key_id,
        identity_secret=_secret(document.identity),
        zmk=zmk.value,
        zmk_kcv=zmk.kcv,
    )
    draft.records[RECORD] = provisioned_record()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings_file.save(home, url, str(credentials_file) if credentials_file else None, reader)
        _new_journal(home / JOURNAL_FILE, journal_id, disk, random)
    except OSError as error:
        raise SettingsError(
            f"{home} cannot be written: {error.strerror}", advice="Check the disk, then try again."
        ) from None
    Vault.create(
        home / VAULT_FILE, secret, random=random, facts=draft.facts, records=draft.records, disk=disk
    ).close()


def _secret(identity: Identity) -> bytes:
    try:
        return base64.b64decode(identity.secret, validate=True)
    except ValueError:  # binascii's own, or letters outside ASCII
        raise SettingsError("the device document: identity.secret is not base64") from None


def _zmk(document: DeviceDocument, url: str, components: tuple[Component, ...], zmk_kcv: str) -> Component:
    if components:
        return Component(combine_components(components, zmk_kcv), zmk_kcv)
    if document.zmk is None:
        raise SettingsError(
            "the device document holds no ZMK", advice="Enter its components: till provision --zmk-components 2."
        )
    if not settings_file.is_loopback(url):
        raise SettingsError(
            f"a clear ZMK is for a simulator on this machine only, and the host is {url}",
            advice="Enter the ZMK as components: till provision --zmk-components 2.",
        )
    try:
        return Component(bytes.fromhex(document.zmk.key), document.zmk.kcv)
    except ValueError:
        raise SettingsError("the device document: zmk.key is not hex") from None


def _new_journal(path: Path, journal_id: str, disk: Disk, random: Random) -> None:
    """An empty journal, in place of the empty one of a provisioning that was cut short."""
    journal_swap.settle(path, disk, random)
    if path.exists():
        if not is_blank(path) and _holds_payments(path):
            raise JournalError(
                f"{path} holds payments and the vault beside it is gone",
                advice="Restore the vault, or take another --home.",
            )
        for name in (path.name, path.name + "-wal", path.name + "-shm"):
            path.with_name(name).unlink(missing_ok=True)
    Journal.create(path, journal_id, disk=disk, random=random).close()
    disk.sync(path.parent)


def _holds_payments(path: Path) -> bool:
    journal = Journal.open(path)
    try:
        return bool(journal.payments())
    finally:
        journal.close()
