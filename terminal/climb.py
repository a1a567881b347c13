"""The climb from level to level, the ways back, and what is renewed at the top.

What a step brings is in ``fetching``; how it comes to lie on disk is in ``standing``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from terminal.activation import ACTIVATION, CALLS_LEFT, WAYS_BACK, Level, Step
from terminal.clock import HostClock
from terminal.crypto.keystore import Keystore
from terminal.crypto.vault import Vault
from terminal.errors import CryptoError, HostAnswerInvalid, HostRefused, KeystoreError, NotReady
from terminal.events import Event, PairingCodeShown, PairingPolled, RefreshRefused
from terminal.fetching import CONFIG, PARAMETERS, Fetching
from terminal.settings import Settings
from terminal.standing import RECORD, REVOKED, Record, Standing, provisioned_record

if TYPE_CHECKING:
    from terminal.hosts.viopay import ViopayClient

__all__ = ["CONFIG", "PARAMETERS", "RECORD", "Climb", "Record", "provisioned_record"]


class Climb:
    """Climbs from wherever the vault says the terminal stands, and renews what an activated one holds.

    ``anchor`` gives the number of the journal's last record, which each change of the vault notes. Every method
    raises what the host client, the keystore and the vault raise. They may be cancelled wherever they wait.
    """

    def __init__(
        self,
        client: ViopayClient,
        keystore: Keystore,
        vault: Vault,
        clock: HostClock,
        settings: Settings,
        emit: Callable[[Event], None],
        anchor: Callable[[], int] | None = None,
    ) -> None:
        self._client, self._keystore, self._clock = client, keystore, clock
        self._settings, self._emit = settings, emit
        self._standing = Standing(keystore, vault, clock, emit, anchor)
        self._fetching = Fetching(client, keystore, self._standing, clock, settings, emit)
        self._found = self.level
        self._refused: dict[str, str] = {}

    @property
    def level(self) -> Level:
        """Where the terminal stands, on disk."""
        return self._standing.level

    def not_ready(self) -> NotReady | None:
        """Why no payment can be taken, and what to do; None where the terminal is activated."""
        return self._standing.not_ready()

    @property
    def renew_at(self) -> datetime | None:
        """When the key set in use is to be renewed, by the host's clock."""
        return self._keystore.renew_at(timedelta(seconds=self._settings.renew_before))

    async def climb(self) -> None:
        """Go on to ``activated``, one level at a time; each way back is taken once, then its refusal is raised.

        The level that was reached stays, whatever is raised.
        """
        taken: set[Step] = set()
        if self.level is Level.PAIRING:  # whoever asks now has perhaps not seen the code
            self._found = Level.PAIRING
        if self.level in CALLS_LEFT and self._keys_expired():
            self._standing.move(Step.KEYS_EXPIRED)
        while self.level is not Level.ACTIVATED:
            try:
                await self._steps[self.level](self)
            except HostRefused as refusal:
                await self._go_back(refusal, taken)

    @property
    def lost(self) -> bool:
        """Whether the terminal was further up once: then ``come_back`` may help."""
        return self.level is not Level.ACTIVATED and (bool(self._standing.record.lost) or self.level in _CLAIMED)

    async def come_back(self) -> None:
        """Climb again after a fall, but only where nobody has to type a code; else note why it does not go on."""
        if self.level is Level.PROVISIONED:
            await self._fetching.bootstrap()
        if self.level in (Level.BOOTSTRAPPED, Level.PAIRING):
            try:
                status = await self._client.status()
            except HostRefused as refusal:
                self._heed_above(refusal)
                raise
            if not status.is_claimed:
                return self._standing.note(Step.UNCLAIMED.value)
        await self.climb()
        return None

    async def renew_keys(self) -> None:
        """Take a new key set for a terminal that is activated; the level stays.

        Raises HostRefused also where the refusal cost the terminal its level: then only ``climb`` helps.
        """
        await self._refresh("keys", self._fetching.keys)

    async def refresh_config(self) -> None:
        """Take the configuration anew; what is bad is told and not taken, and the one in force stays."""
        await self._refresh("config", self._fetching.config)

    async def refresh_parameters(self) -> None:
        """Take the terminal parameters anew, in the same way."""
        await self._refresh("parameters", self._fetching.parameters)

    async def follow_clock(self) -> bool:
        """Ask the host for its time and date signatures by it; whether ours was off by a second or more."""
        before = self._clock.offset
        await self._fetching.bootstrap()
        return abs((self._clock.offset - before).total_seconds()) >= 1

    def heartbeat_told(self, server_time: datetime, took: float) -> None:
        """The host took a request that we dated, and told its time: follow it, and remember that it agreed."""
        self._fetching.hear(server_time, took)
        if abs((server_time - self._clock.now()).total_seconds()) <= took + 1:
            self._clock.confirm(server_time)

    def heed(self, refusal: HostRefused) -> None:
        """Go back a level where a refusal says that it is lost: then the next ``climb`` has a way up."""
        step = WAYS_BACK.get((refusal.status, refusal.code))
        if step in (Step.UNCLAIMED, Step.VERSION_TOO_OLD) and step in ACTIVATION.table[self.level]:
            self._standing.fall(step, refusal)

    def tidy(self) -> None:
        """Drop the key set before the one in use, once it has expired; tell of a device's clock that jumped."""
        self._standing.tidy()

    # -- the steps ------------------------------------------------------------------------------------------

    async def _bootstrap(self) -> None:
        await self._fetching.bootstrap()

    async def _pair(self) -> None:
        if (await self._client.status()).is_claimed:
            return self._standing.move(Step.CLAIMED)
        issued = await self._client.pairing_code()
        expires_at = self._clock.now() + timedelta(seconds=issued.expires_in_sec)
        self._standing.move(Step.CODE_ISSUED, pairing_code=issued.pairing_code, pairing_expires_at=expires_at)
        self._show_code(resumed=False)
        return None

    async def _poll(self) -> None:
        resumed, self._found = self._found is Level.PAIRING, Level.UNPROVISIONED
        if not resumed:
            await asyncio.sleep(self._settings.pairing_poll)
        status = await self._client.status()
        if status.is_claimed:
            self._standing.move(Step.CLAIMED, pairing_code="", pairing_expires_at=None)
        elif status.pairing_code_status != "pending":
            self._standing.move(Step.CODE_EXPIRED, pairing_code="", pairing_expires_at=None)
        elif resumed:
            self._show_code(resumed=True)
        else:
            self._emit(PairingPolled(at=self._clock.now(), seconds_left=max(0, int(self._seconds_left()))))

    async def _attest(self) -> None:
        await self._fetching.attest()

    async def _fetch_keys(self) -> None:
        await self._fetching.keys()

    async def _fetch_config(self) -> None:
        await self._fetching.config()

    async def _fetch_parameters(self) -> None:
        await self._fetching.parameters()

    async def _activate(self) -> None:
        if self._found is Level.PARAMETERISED:
            # The answer may have been lost, and with it the power: the host knows whether the level holds.
            self._found = Level.UNPROVISIONED
            if (await self._client.status()).device_status == "activated":
                return self._standing.move(Step.ACTIVATED, token="", token_expires_at=None)
        if token := await self._fetching.lasting_token():
            self._found = Level.PARAMETERISED
            await self._client.activate(token, emv_ready=True, keys_installed=True, network_ok=True)
            self._found = Level.UNPROVISIONED
            self._fetching.forget_token()
            self._standing.move(Step.ACTIVATED, token="", token_expires_at=None)
        return None

    _steps: Mapping[Level, Callable[[Climb], Awaitable[None]]] = {
        Level.PROVISIONED: _bootstrap,
        Level.BOOTSTRAPPED: _pair,
        Level.PAIRING: _poll,
        Level.CLAIMED: _attest,
        Level.ATTESTED: _fetch_keys,
        Level.KEYED: _fetch_config,
        Level.CONFIGURED: _fetch_parameters,
        Level.PARAMETERISED: _activate,
    }

    # -- below ----------------------------------------------------------------------------------------------

    async def _refresh(self, what: str, fetch: Callable[[], Awaitable[None]]) -> None:
        taken: set[Step] = set()
        while True:
            try:
                await fetch()
            except HostRefused as refusal:
                await self._go_back(refusal, taken)
                if self.level is not Level.ACTIVATED:
                    raise
            except KeystoreError:  # the disk's trouble, not the host's
                raise
            except (HostAnswerInvalid, CryptoError) as problem:
                if self._refused.get(what) != str(problem):
                    self._refused[what] = str(problem)
                    self._emit(RefreshRefused(at=self._clock.now(), what=what, reason=str(problem)))
                raise
            else:
                self._refused.pop(what, None)
                return

    async def _go_back(self, refusal: HostRefused, taken: set[Step]) -> None:
        step, known = WAYS_BACK.get((refusal.status, refusal.code)), ACTIVATION.table[self.level]
        if step is Step.TOKEN_EXPIRED and (refusal.call == "pos/attest" or step not in known):
            step = Step.BOOTSTRAPPED  # it is a signature that was refused, and its date may be to blame
        if step is None or step in taken or (step is not Step.BOOTSTRAPPED and step not in known):
            self._heed_above(refusal)
            raise refusal
        taken.add(step)
        if step is Step.BOOTSTRAPPED:
            await self._fetching.bootstrap()
        elif step is Step.TOKEN_EXPIRED:
            self._fetching.drop_token()
        else:
            self._standing.fall(step, refusal)
        if step is Step.VERSION_TOO_OLD:
            raise refusal

    def _heed_above(self, refusal: HostRefused) -> None:
        """Not even allowed to ask for a code: revoked, where a device that nobody has claimed may ask."""
        step = WAYS_BACK.get((refusal.status, refusal.code))
        if step is Step.UNCLAIMED and step not in ACTIVATION.table[self.level]:
            self._standing.note(REVOKED)

    def _keys_expired(self) -> bool:
        expires_at = self._keystore.key_set_expires_at
        return self.level is not Level.ATTESTED and expires_at is not None and expires_at <= self._clock.now()

    def _seconds_left(self) -> float:
        expires_at = self._standing.record.pairing_expires_at
        return (expires_at - self._clock.now()).total_seconds() if expires_at else 0.0

    def _show_code(self, *, resumed: bool) -> None:
        record = self._standing.record
        if record.pairing_expires_at is not None:
            self._emit(
                PairingCodeShown(
                    at=self._clock.now(),
                    pairing_code=record.pairing_code,
                    expires_at=record.pairing_expires_at,
                    resumed=resumed,
                )
            )


_CLAIMED = frozenset({Level.CLAIMED, *CALLS_LEFT} - {Level.ACTIVATED})
"""Levels from which no person is needed on the way up."""
