"""What the host gives a terminal beside payments: its time, and with an attestation token keys, configuration and
parameters. Each is judged whole before it takes the place of what was there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from terminal import config, guard
from terminal.activation import ACTIVATION, CALLS_LEFT, Level, Step
from terminal.clock import HostClock, Verdict, rfc3339
from terminal.crypto.keystore import Keystore
from terminal.crypto.vault import Draft, Vault
from terminal.errors import HostAnswerInvalid, VersionTooOld
from terminal.events import (
    ClockMoved,
    ClockRefused,
    ConfigChanged,
    Downloading,
    Event,
    KeysRenewed,
    ParametersChanged,
)
from terminal.settings import Settings
from terminal.standing import Standing

if TYPE_CHECKING:
    from terminal.hosts.viopay import ViopayClient

CONFIG = "config"
PARAMETERS = "parameters"

_ASKED_FOR_TIME = 3
"""Times in a row: a host that is far from us says so twice, and one of its answers may be a stray."""


def kept_config(vault: Vault) -> config.Config | None:
    """What the host told this terminal to be; None before it is configured."""
    kept = vault.get(CONFIG)
    return config.parse_config(kept) if kept is not None else None


def kept_parameters(vault: Vault) -> config.Parameters | None:
    """The terminal parameters; None before there are any."""
    kept = vault.get(PARAMETERS)
    return config.parse_parameters(kept) if kept is not None else None


class Fetching:
    """Asks, judges and installs. Each method raises what the host client, the keystore and the vault raise.

    The token of a terminal that is activated is held in memory: a power cut costs it one more attestation, and
    saves the disk a write of the whole vault for each.
    """

    def __init__(
        self,
        client: ViopayClient,
        keystore: Keystore,
        standing: Standing,
        clock: HostClock,
        settings: Settings,
        emit: Callable[[Event], None],
    ) -> None:
        self._client, self._keystore, self._standing = client, keystore, standing
        self._clock, self._settings, self._emit = clock, settings, emit
        self._token, self._token_expires_at = standing.record.token, standing.record.token_expires_at
        self._token_life = timedelta.max

    # -- the time -------------------------------------------------------------------------------------------

    async def bootstrap(self) -> None:
        """Ask the host for its time, and follow it; VersionTooOld where it serves this version no more."""
        loop = asyncio.get_running_loop()
        for _ in range(_ASKED_FOR_TIME):
            asked_at = loop.time()
            heard = await self._client.bootstrap()
            if self.hear(heard.server_time, loop.time() - asked_at) is not Verdict.ONCE:
                break
        ours = self._settings.host.client_version
        if _version(ours) < _version(heard.min_supported_version):
            self._standing.fall(Step.VERSION_TOO_OLD)
            raise VersionTooOld(
                f"the host wants version {heard.min_supported_version} or newer, and this is {ours}",
                advice="Upgrade this program (pip install --upgrade tillwright).",
            )
        if Step.BOOTSTRAPPED in ACTIVATION.table[self._standing.level]:
            self._standing.move(Step.BOOTSTRAPPED)
        else:
            self._standing.write(self._standing.record)

    def hear(self, server_time: datetime, took: float) -> Verdict:
        """Follow the host's time, heard ``took`` seconds after it was asked for it, and tell of it."""
        heard = self._clock.follow(server_time, took)
        if heard.verdict is Verdict.MOVED:
            self._emit(ClockMoved(at=self._clock.now(), seconds=round(heard.off.total_seconds(), 3)))
        elif heard.verdict is Verdict.REFUSED:
            back = -heard.off.total_seconds()
            advice = "Set the host's clock right."
            if server_time < self._clock.floor:
                advice += f" Should it be right, start once with the setting clock_step above {back:.0f}."
            self._emit(ClockRefused(at=self._clock.now(), said=server_time, floor=self._clock.floor, advice=advice))
        return heard.verdict

    # -- with a token ---------------------------------------------------------------------------------------

    async def attest(self) -> None:
        """Take a new token."""
        answer = await self._client.attest()
        self._clock.confirm(self._clock.now())  # the host took a signature of this date
        self._token_life = timedelta(seconds=answer.expires_in_sec)
        self._token, self._token_expires_at = answer.attestation_token, self._clock.now() + self._token_life
        if self._standing.level is not Level.ACTIVATED:
            self._standing.move(Step.ATTESTED, token=self._token, token_expires_at=self._token_expires_at)

    async def lasting_token(self) -> str | None:
        """A token that lasts to the end; None where taking a new one is a step of its own.

        A host's tokens may all be shorter than our timeouts: a fresh one is good for half of its life, whatever
        they are, or we would ask for tokens without end.
        """
        wanted = timedelta(seconds=CALLS_LEFT[self._standing.level] * self._settings.host.read_timeout)
        wanted = min(wanted, self._token_life / 2)
        expires_at = self._token_expires_at
        if not self._token or expires_at is None or expires_at - self._clock.now() < wanted:
            self.drop_token()
            if self._standing.level is Level.CLAIMED:
                return None
            await self.attest()
        return self._token

    def drop_token(self) -> None:
        """The token holds no more, by its time or by the host's word."""
        self.forget_token()
        self._standing.move(Step.TOKEN_EXPIRED, token="", token_expires_at=None)

    def forget_token(self) -> None:
        """Nothing is left to ask with it."""
        self._token, self._token_expires_at = "", None

    async def keys(self) -> None:
        """Take a new key set; the one in use stays beside it until it expires."""
        token = await self.lasting_token()
        if token is None:
            return
        answer = await self._client.keys(token)
        discard = guard.not_in_software(self._settings)

        def install(draft: Draft) -> None:
            self._keystore.install(draft, answer, self._clock.now(), discard=discard)
            draft.facts.update(
                key_set_id=answer.key_set_id,
                key_set_issued_at=rfc3339(answer.issued_at),
                key_set_expires_at=rfc3339(answer.expires_at),
            )

        self._standing.move(Step.KEYS_INSTALLED, install)
        if self._standing.level is Level.ACTIVATED:
            self._emit(
                KeysRenewed(at=self._clock.now(), key_set_id=answer.key_set_id, expires_at=answer.expires_at)
            )

    async def config(self) -> None:
        """Take the configuration, once it is proved to be ours and to make sense."""
        if token := await self.lasting_token():
            plaintext = self._keystore.open(await self._client.config(token), limit=self._settings.parameters_limit)
            new = config.parse_config(plaintext)
            ids = (self._standing.fact("terminal_id"), self._standing.fact("device_id"))
            if (new.terminal.terminal_id, new.terminal.device_id) != ids:
                raise HostAnswerInvalid("pos/config", "terminal", "it is of another terminal than this one")
            config.check_config(new)
            before = self._replace(Step.CONFIG_INSTALLED, CONFIG, plaintext)
            if before is not None:
                sections = config.differing(config.parse_config(before), new)
                self._emit(ConfigChanged(at=self._clock.now(), sections=sections))

    async def parameters(self) -> None:
        """Take the terminal parameters, once they are proved to be such."""
        if token := await self.lasting_token():
            quiet = self._standing.level is Level.ACTIVATED  # nobody waits for it
            body = await self._client.parameters(token, progress=None if quiet else self._downloading)
            plaintext = self._keystore.open(body, limit=self._settings.parameters_limit)
            new = config.parse_parameters(plaintext)
            if self._replace(Step.PARAMETERS_INSTALLED, PARAMETERS, plaintext) is not None:
                self._emit(ParametersChanged(at=self._clock.now(), version=new.version))

    # -- below ----------------------------------------------------------------------------------------------

    def _replace(self, step: Step, name: str, plaintext: bytes) -> bytes | None:
        """What was replaced in a terminal that is activated; None where nothing was."""
        before = self._standing.kept(name) if self._standing.level is Level.ACTIVATED else None
        if before == plaintext:
            return None

        def change(draft: Draft) -> None:
            draft.records[name] = plaintext

        self._standing.move(step, change)
        return before

    def _downloading(self, received: int, total: int | None) -> None:
        self._emit(Downloading(at=self._clock.now(), what="terminal parameters", received=received, total=total))


def _version(text: str) -> tuple[int, ...]:
    """``0.10.2`` as (0, 10, 2); what is not a number counts as zero."""
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in text.split("."))
