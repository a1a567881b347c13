"""What the calls share: the ledger, the HSM, the gate, and the sealing of answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from sim.faults.wire import WrongKey
from sim.host.auth import Gate
from sim.host.calls import Answer, Call
from sim.host.config import HostConfig
from sim.host.exchanges import Exchanges
from sim.host.hsm import Hsm, LiveKeys
from sim.host.ledger import Ledger
from sim.host.parameters import generate
from sim.host.twists import twisted
from sim.seed import seeded
from terminal.clock import Random
from terminal.crypto import envelope

_KCV_DIGITS = 6


class Host:
    """One host: its memory, its keys, its rules. The calls are functions of it (``viopay_*``)."""

    def __init__(self, ledger: Ledger, *, hsm: Hsm, random: Random, config: HostConfig) -> None:
        self.ledger, self.registry = ledger, ledger.registry
        self.hsm, self.random, self.config = hsm, random, config
        self.gate = Gate(ledger, hsm, config)
        self.exchanges = Exchanges(config.max_exchanges)
        self.parameters = self._parameters()
        self.parameters_json = msgspec.json.encode(self.parameters)

    def _parameters(self) -> dict[str, Any]:
        """The same after every restart: made from a number that the ledger keeps."""
        seed = self.ledger.fact("parameters_seed")
        if seed is None:
            seed = self.random(16).hex()
            with self.ledger.transaction():
                self.ledger.set_fact("parameters_seed", seed)
        return generate(seeded(bytes.fromhex(seed), "parameters"))

    def sealed(self, call: Call, keys: LiveKeys, document: Mapping[str, Any], status: int = 200) -> Answer:
        """An answer in an envelope under the key set's MSK."""
        key = self.random(len(keys.msk)) if isinstance(call.fault, WrongKey) else keys.msk
        plaintext = twisted(self.ledger, self.random, call, document)
        body = envelope.seal(key, msgspec.json.encode(plaintext), self.random, kcv=keys.msk_kcv[:_KCV_DIGITS])
        return Answer(envelope.encode(body), plaintext, status)

    def sealed_parameters(self, call: Call, keys: LiveKeys) -> Answer:
        """The terminal parameters, in chunks."""
        key = self.random(len(keys.msk)) if isinstance(call.fault, WrongKey) else keys.msk
        body = envelope.seal_packed(key, _packed(self.parameters_json), self.random, keys.msk_kcv[:_KCV_DIGITS])
        return Answer(envelope.encode(body), self.parameters)


_packed = lru_cache(maxsize=4)(envelope.packed)
