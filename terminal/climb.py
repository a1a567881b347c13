"""The climb from level to level, and the record of where the terminal stands.

The record lies in the vault. It is written together with what a step brought (keys, configuration,
parameters), in one atomic write, so that a power cut finds either both or neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from terminal import config, guard
from terminal.activation import ACTIVATION, CALLS_LEFT, WAYS_BACK, Level, Step
from terminal.clock import HostClock, rfc3339
from terminal.crypto.keystore import Keystore
from terminal.crypto.vault import Draft, Vault
from terminal.errors import HostAnswerInvalid, HostRefused, VersionTooOld
from terminal.events import (
    ClockMoved,
    Downloading,
    Event,
    LevelLost,
    LevelReached,
    PairingCodeShown,
    PairingPolled,
)
from terminal.settings import Settings

if TYPE_CHECKING:
    from terminal.hosts.viopay import ViopayClient

RECORD = "activation"
CONFIG = "config"
PARAMETERS = "parameters"


class Record(msgspec.Struct, frozen=True):
    """Where the terminal stands, as the vault keeps it. Moments are by the host's clock."""

    level: Level = Level.UNPROVISIONED
    pairing_code: str = ""
    pairing_expires_at: datetime | None = None
    token: str = ""
    token_expires_at: datetime | None = None
    clock_offset: float = 0.0
    """Seconds to add to the device's clock to have the host's."""

    def __repr__(self) -> str:
        return f"Record(level={self.level.value!r})"


def provisioned_record() -> bytes:
    """The record of a terminal that has just been given its identity."""
    return msgspec.json.encode(Record(ACTIVATION.step(Level.UNPROVISIONED, Step.PROVISIONED)))


class Climb:
    """Climbs from wherever the vault says the terminal stands, and renews keys of one that is activated."""

    def __init__(
        self,
        client: ViopayClient,
        keystore: Keystore,
        vault: Vault,
        clock: HostClock,
        settings: Settings,
        emit: Callable[[Event], None],
    ) -> None:
        self._client, self._keystore, self._vault = client, keystore, vault
        self._clock, self._settings, self._emit = clock, settings, emit
        self._record = msgspec.json.decode(vault.get(RECORD) or b"{}", type=Record)
        self._found = self._record.level
        self._token_life = timedelta.max
        clock.offset = timedelta(seconds=self._record.clock_offset)

    @property
    def level(self) -> Level:
        """Where the terminal stands, on disk."""
        return self._record.level

    async def climb(self) -> None:
        """Go on to ``activated``, one level at a time; each way back is taken once, then its refusal is raised.

        Raises what the host client, the keystore and the vault raise; the level that was reached stays.
        """
        taken: set[Step] = set()
        if self.level in CALLS_LEFT and self._keys_expired():
            self._move(Step.KEYS_EXPIRED)
        while self.level is not Level.ACTIVATED:
            try:
                await self._steps[self.level](self)
            except HostRefused as refusal:
                await self._go_back(refusal, taken)

    async def renew_keys(self) -> None:
        """Take a new key set for a terminal that is activated; the level stays.

        Raises HostRefused also where the refusal cost the terminal its level: then only ``climb`` helps.
        """
        taken: set[Step] = set()
        while True:
            try:
                return await self._fetch_keys()
            except HostRefused as refusal:
                await self._go_back(refusal, taken)
                if self.level is not Level.ACTIVATED:
                    raise

    async def follow_clock(self) -> bool:
        """Ask the host for its time and date signatures by it; whether ours was off by a second or more."""
        before = self._clock.offset
        await self._bootstrap()
        return abs((self._clock.offset - before).total_seconds()) >= 1

    def heed(self, refusal: HostRefused) -> None:
        """Go back a level where a payment's refusal says that it is lost: then the next ``climb`` has a way up."""
        step = WAYS_BACK.get((refusal.status, refusal.code))
        if step in (Step.UNCLAIMED, Step.VERSION_TOO_OLD) and step in ACTIVATION.table[self.level]:
            self._fall(step)

    def tidy(self) -> None:
        """Drop the key set before the one in use, once it has expired."""
        if self._keystore.holds_expired(self._clock.now()):
            self._write(self._record)

    # -- the steps ------------------------------------------------------------------------------------------

    async def _bootstrap(self) -> None:
        heard = await self._client.bootstrap()
        moved = self._clock.follow(heard.server_time).total_seconds()
        if abs(moved) >= 1:
            self._emit(ClockMoved(at=self._clock.now(), seconds=round(moved, 3)))
        ours = self._settings.host.client_version
        if _version(ours) < _version(heard.min_supported_version):
            self._move(Step.VERSION_TOO_OLD)
            raise VersionTooOld(
                f"the host wants version {heard.min_supported_version} or newer, and this is {ours}",
                advice="Upgrade this program (pip install --upgrade tillwright).",
            )
        offset = self._clock.offset.total_seconds()
        if Step.BOOTSTRAPPED in ACTIVATION.table[self.level]:
            self._move(Step.BOOTSTRAPPED, clock_offset=offset)
        else:
            self._write(msgspec.structs.replace(self._record, clock_offset=offset))

    async def _pair(self) -> None:
        if (await self._client.status()).is_claimed:
            return self._move(Step.CLAIMED)
        issued = await self._client.pairing_code()
        expires_at = self._clock.now() + timedelta(seconds=issued.expires_in_sec)
        self._move(Step.CODE_ISSUED, pairing_code=issued.pairing_code, pairing_expires_at=expires_at)
        self._show_code(resumed=False)
        return None

    async def _poll(self) -> None:
        resumed, self._found = self._found is Level.PAIRING, Level.UNPROVISIONED
        if not resumed:
            await asyncio.sleep(self._settings.pairing_poll)
        status = await self._client.status()
        if status.is_claimed:
            self._move(Step.CLAIMED, pairing_code="", pairing_expires_at=None)
        elif status.pairing_code_status != "pending":
            self._move(Step.CODE_EXPIRED, pairing_code="", pairing_expires_at=None)
        elif resumed:
            self._show_code(resumed=True)
        else:
            self._emit(PairingPolled(at=self._clock.now(), seconds_left=max(0, int(self._seconds_left()))))

    async def _attest(self) -> None:
        answer = await self._client.attest()
        self._token_life = timedelta(seconds=answer.expires_in_sec)
        expires_at = self._clock.now() + self._token_life
        self._move(Step.ATTESTED, token=answer.attestation_token, token_expires_at=expires_at)

    async def _fetch_keys(self) -> None:
        token = await self._lasting_token()
        if token is None:
            return
        answer = await self._client.keys(token)
        discard = guard.not_in_software(self._settings)

        def install(draft: Draft) -> None:
            self._keystore.install(draft, answer, self._clock.now(), discard=discard)
            draft.facts.update(key_set_id=answer.key_set_id, key_set_expires_at=rfc3339(answer.expires_at))

        self._move(Step.KEYS_INSTALLED, install)

    async def _fetch_config(self) -> None:
        if token := await self._lasting_token():
            plaintext = self._keystore.open(await self._client.config(token), limit=self._settings.parameters_limit)
            ids = config.parse_config(plaintext).terminal
            facts = self._vault.facts
            if (ids.terminal_id, ids.device_id) != (facts["terminal_id"], facts["device_id"]):
                raise HostAnswerInvalid("pos/config", "terminal", "it is of another terminal than this one")
            self._move(Step.CONFIG_INSTALLED, _keep(CONFIG, plaintext))

    async def _fetch_parameters(self) -> None:
        if token := await self._lasting_token():
            body = await self._client.parameters(token, progress=self._downloading)
            plaintext = self._keystore.open(body, limit=self._settings.parameters_limit)
            config.parse_parameters(plaintext)
            self._move(Step.PARAMETERS_INSTALLED, _keep(PARAMETERS, plaintext))

    async def _activate(self) -> None:
        if self._found is Level.PARAMETERISED:
            # The answer may have been lost, and with it the power: the host knows whether the level holds.
            self._found = Level.UNPROVISIONED
            if (await self._client.status()).device_status == "activated":
                return self._move(Step.ACTIVATED, token="", token_expires_at=None)
        if token := await self._lasting_token():
            self._found = Level.PARAMETERISED
            await self._client.activate(token, emv_ready=True, keys_installed=True, network_ok=True)
            self._found = Level.UNPROVISIONED
            self._move(Step.ACTIVATED, token="", token_expires_at=None)
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

    def _move(self, step: Step, change: Callable[[Draft], None] | None = None, **fields: Any) -> None:
        """Take a step and what it brought to disk in one write, then tell."""
        before = self.level
        record = msgspec.structs.replace(self._record, level=ACTIVATION.step(before, step), **fields)
        self._write(record, change)
        if step in WAYS_BACK.values() or step is Step.CODE_EXPIRED:
            self._emit(LevelLost(at=self._clock.now(), level=record.level.value, reason=step.value))
        elif record.level is not before:
            self._emit(LevelReached(at=self._clock.now(), level=record.level.value))

    def _fall(self, step: Step) -> None:
        """Take a step back; a device that is nobody's forgets its key sets with it."""
        self._move(step, self._forget_keys if step is Step.UNCLAIMED else None)

    def _forget_keys(self, draft: Draft) -> None:
        self._keystore.forget_key_sets(draft)
        for fact in ("key_set_id", "key_set_expires_at"):
            draft.facts.pop(fact, None)

    def _write(self, record: Record, change: Callable[[Draft], None] | None = None) -> None:
        with self._vault.change() as draft:
            if change is not None:
                change(draft)
            self._keystore.drop_superseded(draft, self._clock.now())
            draft.records[RECORD] = msgspec.json.encode(record)
            draft.facts["level"] = record.level.value
        self._record = record

    async def _go_back(self, refusal: HostRefused, taken: set[Step]) -> None:
        step, known = WAYS_BACK.get((refusal.status, refusal.code)), ACTIVATION.table[self.level]
        if step is Step.TOKEN_EXPIRED and (refusal.call == "pos/attest" or step not in known):
            step = Step.BOOTSTRAPPED  # it is a signature that was refused, and its date may be to blame
        if step is None or step in taken or (step is not Step.BOOTSTRAPPED and step not in known):
            raise refusal
        taken.add(step)
        if step is Step.BOOTSTRAPPED:
            await self._bootstrap()
        elif step is Step.TOKEN_EXPIRED:
            self._drop_token()
        else:
            self._fall(step)
        if step is Step.VERSION_TOO_OLD:
            raise refusal

    async def _lasting_token(self) -> str | None:
        """A token that lasts to the end; None where taking a new one is a step of its own.

        A host's tokens may all be shorter than our timeouts: a fresh one is good for half of its life, whatever
        they are, or we would ask for tokens without end.
        """
        wanted = timedelta(seconds=CALLS_LEFT[self.level] * self._settings.host.read_timeout)
        wanted = min(wanted, self._token_life / 2)
        expires_at = self._record.token_expires_at
        if not self._record.token or expires_at is None or expires_at - self._clock.now() < wanted:
            self._drop_token()
            if self.level is Level.CLAIMED:
                return None
            await self._attest()
        return self._record.token

    def _drop_token(self) -> None:
        self._move(Step.TOKEN_EXPIRED, token="", token_expires_at=None)

    def _keys_expired(self) -> bool:
        expires_at = self._keystore.key_set_expires_at
        return self.level is not Level.ATTESTED and expires_at is not None and expires_at <= self._clock.now()

    def _seconds_left(self) -> float:
        expires_at = self._record.pairing_expires_at
        return (expires_at - self._clock.now()).total_seconds() if expires_at else 0.0

    def _show_code(self, *, resumed: bool) -> None:
        expires_at = self._record.pairing_expires_at
        if expires_at is not None:
            self._emit(
                PairingCodeShown(
                    at=self._clock.now(),
                    pairing_code=self._record.pairing_code,
                    expires_at=expires_at,
                    resumed=resumed,
                )
            )

    def _downloading(self, received: int, total: int | None) -> None:
        self._emit(Downloading(at=self._clock.now(), what="terminal parameters", received=received, total=total))


def _keep(name: str, plaintext: bytes) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.records[name] = plaintext

    return change


def _version(text: str) -> tuple[int, ...]:
    """``0.10.2`` as (0, 10, 2); what is not a number counts as zero."""
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in text.split("."))
