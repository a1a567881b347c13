from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from pprint import pformat
from typing import Any

import msgspec
import psec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from terminal.crypto import envelope, policy
from terminal.crypto.envelope import encode, open_envelope, seal, seal_chunked
from terminal.crypto.kcv import aes_kcv, ecb_kcv, hmac_kcv
from terminal.crypto.key_set import StoredKey, StoredSets
from terminal.crypto.keyblock_header import Header, OptionalBlock, Tolerance
from terminal.crypto.keystore import PARENTS, KeyFacts, Keystore, Role, WrappedKey, WrappedKeySet
from terminal.crypto.policy import Operation, Tolerated
from terminal.crypto.signature import hmac_sha256
from terminal.crypto.vault import CredentialFile, Vault
from terminal.errors import CardDataError, CryptoError, EnvelopeError, KeyBlockError, KeyPolicyError, KeystoreError
from tests.terminal.crypto.key_sets import DAY, HEADERS, NOW, HostKeys

ZMK = bytes(range(100, 132))
SECRET = bytes(range(32, 64))


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    credential = tmp_path / "credential"
    credential.write_bytes(os.urandom(32))
    credential.chmod(0o400)
    with Vault.create(tmp_path / "vault", CredentialFile(credential), random=os.urandom) as vault:
        yield vault


def provisioned(vault: Vault, **options: Any) -> Keystore:
    keystore = Keystore(vault, os.urandom, **options)
    with vault.change() as draft:
        keystore.provision(
            draft,
            device_id="POS-8F3A2C91",
            terminal_id="TID-004812",
            identity_key_id="id-1",
            identity_secret=SECRET,
            zmk=ZMK,
            zmk_kcv=aes_kcv(ZMK),
        )
    return keystore


def installed(vault: Vault, keystore: Keystore, answer: WrappedKeySet) -> str:
    with vault.change() as draft:
        return keystore.install(draft, answer, NOW)


@pytest.fixture
def keystore(vault: Vault) -> Keystore:
    return provisioned(vault)


@pytest.fixture
def host() -> HostKeys:
    return HostKeys(ZMK)


@pytest.fixture
def keyed(vault: Vault, keystore: Keystore, host: HostKeys) -> Keystore:
    installed(vault, keystore, host.answer())
    return keystore


# --- what keys do -------------------------------------------------------------------------------------------


def test_payloads_go_both_ways_under_the_msk(keyed: Keystore, host: HostKeys) -> None:
    msk = host.keys[Role.MSK]
    assert open_envelope(msk, keyed.seal(b"{}"), limit=9) == b"{}"
    assert keyed.open(encode(seal(msk, b"{}", os.urandom)), limit=9) == b"{}"
    assert keyed.open(encode(seal(msk, b"{}", os.urandom, kcv=host.kcv(Role.MSK, 5))), limit=9) == b"{}"
    assert keyed.open(encode(seal_chunked(msk, b"{}" * 9, os.urandom, host.kcv(Role.MSK))), limit=18) == b"{}" * 9


def test_card_data_goes_out_under_the_tdk_and_names_it(keyed: Keystore, host: HostKeys) -> None:
    sealed = keyed.seal_card(b"4761739001010119")
    assert sealed["key_kcv"] == host.kcv(Role.TDK)
    assert open_envelope(host.keys[Role.TDK], sealed, limit=99) == b"4761739001010119"


def test_pin_blocks_are_made_under_the_tpk(keyed: Keystore, host: HostKeys) -> None:
    made = keyed.pin_block("1234", "4761739001010119")
    block = bytes.fromhex(made.pop("block"))
    assert made == {"format": "ISO-4", "key_kcv": host.kcv(Role.TPK)}
    assert psec.pinblock.decipher_pinblock_iso_4(host.keys[Role.TPK], block, "4761739001010119") == "1234"
    with pytest.raises(CardDataError, match="4 to 12") as caught:
        keyed.pin_block("12", "4761739001010119")
    assert caught.value.__context__ is None


def test_requests_are_signed_by_the_mac_key_and_attestations_by_the_identity(
    keyed: Keystore, host: HostKeys
) -> None:
    assert keyed.sign_request(b"message") == hmac_sha256(host.keys[Role.MAC], b"message")
    assert keyed.sign_attestation(b"message") == hmac_sha256(SECRET, b"message")
    assert keyed.mac_key_id() == "mac-1"
    assert keyed.identity_key_id == "id-1"
    assert (keyed.device_id, keyed.terminal_id) == ("POS-8F3A2C91", "TID-004812")


def test_each_use_is_checked_against_role_and_mode(keyed: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watching(role: Role, mode: str, operation: Operation) -> None:
        asked.append((role, mode, operation))

    monkeypatch.setattr(policy, "require", watching)
    uses: list[Callable[[], object]] = [
        lambda: keyed.open(keyed.seal(b"x"), limit=9),
        lambda: keyed.seal_card(b"x"),
        lambda: keyed.pin_block("1234", "4761739001010119"),
        lambda: keyed.sign_request(b"x"),
        lambda: keyed.sign_attestation(b"x"),
    ]
    for use in uses * 2:
        use()
    assert asked == 2 * [
        (Role.MSK, "B", Operation.ENCRYPT),
        (Role.MSK, "B", Operation.DECRYPT),
        (Role.TDK, "E", Operation.ENCRYPT),
        (Role.TPK, "E", Operation.PIN),
        (Role.MAC, "G", Operation.SIGN),
        (Role.IDENTITY, "G", Operation.SIGN),
    ]


@pytest.mark.parametrize(
    ("role", "mode", "operation"),
    [
        (Role.TPK, "E", Operation.ENCRYPT),
        (Role.TPK, "G", Operation.PIN),
        (Role.TDK, "B", Operation.DECRYPT),
        (Role.MSK, "B", Operation.PIN),
        (Role.MAC, "G", Operation.ENCRYPT),
        (Role.ZMK, "D", Operation.WRAP),
    ],
)
def test_a_key_is_not_used_for_what_its_role_is_not(role: Role, mode: str, operation: Operation) -> None:
    key = StoredKey(role, "k", "000000", "", "", mode, "", bytes(32))
    with pytest.raises(KeyPolicyError, match=f"^{role}: "):
        key.use(operation)


def test_keys_are_there_again_after_a_restart(
    tmp_path: Path, vault: Vault, keyed: Keystore, host: HostKeys
) -> None:
    before = keyed.facts()
    vault.close()
    with Vault.open(tmp_path / "vault", CredentialFile(tmp_path / "credential"), random=os.urandom) as again:
        keystore = Keystore(again, os.urandom)
        assert keystore.facts() == before
        assert keystore.key_set_id == "ks-1"
        assert keystore.key_set_expires_at == NOW + DAY
        assert open_envelope(host.keys[Role.MSK], keystore.seal(b"x"), limit=9) == b"x"
    assert Vault.read_facts(tmp_path / "vault") == {"device_id": "POS-8F3A2C91", "terminal_id": "TID-004812"}


# --- what is known ------------------------------------------------------------------------------------------


def test_the_facts_name_every_key_and_show_none(keyed: Keystore, host: HostKeys) -> None:
    facts = {fact.role: fact for fact in keyed.facts()}
    assert list(facts) == [Role.ZMK, Role.IDENTITY, *PARENTS]
    assert facts[Role.ZMK].kcv == aes_kcv(ZMK)
    assert facts[Role.IDENTITY] == KeyFacts(Role.IDENTITY, "id-1", hmac_kcv(SECRET), "M7", "H", "G")
    assert facts[Role.TPK] == KeyFacts(Role.TPK, "tpk-1", host.kcv(Role.TPK), "P0", "A", "E", "ks-1")


def test_the_block_of_each_key_is_kept_and_of_tmk_and_kek_nothing_else(vault: Vault, keyed: Keystore) -> None:
    sets = msgspec.msgpack.decode(vault.get("key_sets") or b"", type=StoredSets)
    assert sets.current is not None
    for role, key in sets.current.keys.items():
        assert key.key_block.startswith("D")
        assert bool(key.value) == (role not in (Role.TMK, Role.KEK))
    with pytest.raises(KeystoreError, match="kek: this key is not kept"):
        sets.current.keys[Role.KEK].use(Operation.UNWRAP)


def test_without_keys_every_use_says_so(vault: Vault, keystore: Keystore) -> None:
    uses: list[Callable[[], object]] = [
        lambda: keystore.seal(b""),
        lambda: keystore.open(b"{}", limit=1),
        lambda: keystore.seal_card(b""),
        lambda: keystore.pin_block("1234", "4761739001010119"),
        lambda: keystore.sign_request(b""),
        lambda: keystore.mac_key_id(),
    ]
    for use in uses:
        with pytest.raises(KeystoreError, match="no keys are installed") as caught:
            use()
        assert caught.value.advice
    assert keystore.key_set_id is None
    assert keystore.key_set_expires_at is None
    assert [fact.role for fact in keystore.facts()] == [Role.ZMK, Role.IDENTITY]


def test_without_a_device_every_question_says_so(vault: Vault) -> None:
    keystore = Keystore(vault, os.urandom)
    uses: list[Callable[[], object]] = [
        lambda: keystore.sign_attestation(b""),
        lambda: keystore.identity_key_id,
        lambda: keystore.device_id,
        lambda: keystore.terminal_id,
    ]
    for use in uses:
        with pytest.raises(KeystoreError, match="no device was provisioned"):
            use()
    assert keystore.facts() == []


def test_a_closed_vault_closes_its_keystore(vault: Vault, keyed: Keystore) -> None:
    keyed.seal(b"x")
    vault.close()
    with pytest.raises(KeystoreError, match="closed"):
        keyed.seal(b"x")


def test_keys_are_in_no_repr_and_no_pickle(vault: Vault, keyed: Keystore, host: HostKeys) -> None:
    sets = msgspec.msgpack.decode(vault.get("key_sets") or b"", type=StoredSets)
    with vault.change() as draft:
        outside = [keyed, vault, sets, sets.current, draft, draft.records, keyed.facts(), host.answer()]
        shown = repr(outside) + pretty_repr(outside) + pformat(outside)
    for key in [*host.keys.values(), SECRET]:
        assert key.hex() not in shown.lower()
        assert repr(key)[2:-1] not in shown
    current = sets.current
    assert current is not None
    for secret in (keyed, vault, sets, current, current.keys[Role.MSK]):
        with pytest.raises(TypeError, match="holds secrets"):
            pickle.dumps(secret)


# --- provisioning -------------------------------------------------------------------------------------------


def test_a_zmk_may_come_later_from_a_ceremony(vault: Vault, host: HostKeys) -> None:
    keystore = Keystore(vault, os.urandom)
    with vault.change() as draft:
        keystore.provision(draft, device_id="D", terminal_id="T", identity_key_id="k", identity_secret=SECRET)
    with pytest.raises(KeystoreError, match="no ZMK"):
        installed(vault, keystore, host.answer())
    with vault.change() as draft:
        keystore.set_zmk(draft, ZMK, aes_kcv(ZMK, 5))
    assert installed(vault, keystore, host.answer()) == "ks-1"


def test_a_new_device_takes_nothing_over_from_the_old(vault: Vault, keyed: Keystore) -> None:
    with vault.change() as draft:
        keyed.provision(draft, device_id="D", terminal_id="T", identity_key_id="k", identity_secret=SECRET)
    assert keyed.key_set_id is None
    assert [fact.role for fact in keyed.facts()] == [Role.IDENTITY]
    assert keyed.device_id == "D"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device_id": ""}, "device id"),
        ({"device_id": "a\nb"}, "device id"),
        ({"terminal_id": "é"}, "terminal id"),
        ({"identity_key_id": "x" * 129}, "key id"),
        ({"identity_secret": b"x" * 15}, "identity: "),
        ({"identity_secret": b"x" * 257}, "identity: "),
        ({"zmk": ZMK[:16], "zmk_kcv": aes_kcv(ZMK[:16])}, "zmk: it must have 32"),
        ({"zmk": ZMK, "zmk_kcv": None}, "zmk: its check value"),
        ({"zmk": ZMK, "zmk_kcv": ""}, "zmk: its check value"),
        ({"zmk": ZMK, "zmk_kcv": "000000"}, "zmk: its check value"),
        ({"zmk": None, "zmk_kcv": "000000"}, "zmk: it must have 32"),
        ({"zmk": b"", "zmk_kcv": "000000"}, "zmk: it must have 32"),
    ],
)
def test_a_document_that_cannot_be_is_refused_and_changes_nothing(
    vault: Vault, keyed: Keystore, changes: dict[str, Any], message: str
) -> None:
    document: dict[str, Any] = {
        "device_id": "D",
        "terminal_id": "T",
        "identity_key_id": "k",
        "identity_secret": SECRET,
        **changes,
    }
    with vault.change() as draft:
        before = dict(draft.records), dict(draft.facts)
        with pytest.raises(KeystoreError, match=message):
            keyed.provision(draft, **document)
        assert (draft.records, draft.facts) == before


# --- installing ---------------------------------------------------------------------------------------------


def refuse(
    vault: Vault, keystore: Keystore, answer: WrappedKeySet, message: str, kind: type[CryptoError] = KeyPolicyError
) -> None:
    with vault.change() as draft:
        before = dict(draft.records)
        with pytest.raises(kind, match=message) as caught:
            keystore.install(draft, answer, NOW)
        assert draft.records == before
    assert caught.value.advice
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("role", PARENTS)
def test_a_key_at_fault_is_named_and_nothing_is_installed(
    vault: Vault, keyed: Keystore, host: HostKeys, role: Role
) -> None:
    other = HostKeys(ZMK)
    good = host.wrapped(role)
    flipped = good.key_block[:-1] + ("0" if good.key_block[-1] != "0" else "1")
    short = HostKeys(ZMK)
    short.keys |= {**host.keys, role: os.urandom(16)}
    faults: list[tuple[WrappedKey, str, type[CryptoError]]] = [
        (replace(good, kcv="000000"), "its check value", KeyPolicyError),
        (replace(good, kcv=other.kcv(role)), "its check value", KeyPolicyError),
        (replace(good, kcv=""), "without a check value", KeyPolicyError),
        (replace(good, kcv=None), "without a check value", KeyPolicyError),
        (replace(good, kcv=host.kcv(role)[:4]), "its check value", KeyPolicyError),
        (replace(good, key_id=""), "its key id", KeyPolicyError),
        (replace(good, key_id="a\nb"), "its key id", KeyPolicyError),
        (replace(good, key_block=flipped), "key block", KeyBlockError),
        (replace(good, key_block=good.key_block[:-2]), "key block", KeyBlockError),
        (replace(good, key_block=""), "key block", KeyBlockError),
        (other.wrapped(role, under=Role.TPK), "key block", KeyBlockError),
        (short.wrapped(role), "its key has 16 bytes", KeyPolicyError),
    ]
    for key, message, kind in faults:
        refuse(vault, keyed, host.answer("ks-2", **{role: key}), f"^{role}: .*{message}", kind)
    assert keyed.key_set_id == "ks-1"


@pytest.mark.parametrize("role", [Role.MSK, Role.TPK, Role.TDK, Role.MAC, Role.KEK])
def test_keys_out_of_hierarchy_are_refused(vault: Vault, keystore: Keystore, host: HostKeys, role: Role) -> None:
    under = Role.ZMK if role is Role.KEK else Role.TMK
    refuse(vault, keystore, host.answer(**{role: host.wrapped(role, under=under)}), f"^{role}: ", KeyBlockError)


@pytest.mark.parametrize(
    ("role", "header"),
    [
        (Role.TMK, Header("D", "K1", "A", "E")),
        (Role.TMK, Header("D", "D0", "A", "D")),
        (Role.MSK, Header("D", "D0", "A", "E")),
        (Role.MSK, Header("D", "P0", "A", "E")),
        (Role.TPK, Header("D", "P0", "A", "B")),
        (Role.TPK, Header("D", "M7", "H", "G", blocks=(OptionalBlock("HM", "21"),))),
        (Role.TDK, Header("D", "D0", "A", "D")),
        (Role.TDK, Header("D", "D0", "A", "E", exportability="S")),
        (Role.MAC, Header("D", "M7", "H", "G")),
        (Role.MAC, Header("D", "M7", "H", "V", blocks=(OptionalBlock("HM", "21"),))),
        (Role.MAC, Header("D", "M7", "H", "G", blocks=(OptionalBlock("HM", "22"),))),
    ],
)
def test_a_header_that_its_role_may_not_have_is_refused(
    vault: Vault, keystore: Keystore, role: Role, header: Header
) -> None:
    host = HostKeys(ZMK, headers={**HEADERS, role: header})
    refuse(vault, keystore, host.answer(), f"^{role}: ")


def test_what_is_tolerated_is_named(vault: Vault, host: HostKeys) -> None:
    headers = {**HEADERS, Role.MAC: replace(HEADERS[Role.MAC], mode="N")}
    loose = HostKeys(ZMK, headers=headers)
    refuse(vault, provisioned(vault), loose.answer(), "^mac: .*MODE_N_HMAC")
    keystore = provisioned(vault, tolerated=policy.DEFAULT | Tolerated.MODE_N_HMAC)
    installed(vault, keystore, loose.answer())
    assert keystore.sign_request(b"x") == hmac_sha256(loose.keys[Role.MAC], b"x")

    msk = host.wrapped(Role.MSK)
    lower = replace(msk, key_block=msk.key_block[:16] + msk.key_block[16:].lower())
    refuse(vault, keystore, host.answer("ks-2", msk=lower), "^msk: ", KeyBlockError)
    keystore = provisioned(vault, tolerances=Tolerance.LOWER_CASE_HEX)
    assert installed(vault, keystore, host.answer("ks-2", msk=lower)) == "ks-2"


def test_a_host_of_the_legacy_kcv_is_followed_where_that_is_tolerated(vault: Vault, host: HostKeys) -> None:
    legacy = ecb_kcv(host.keys[Role.MSK], 3)
    answer = host.answer(msk=replace(host.wrapped(Role.MSK), kcv=legacy))
    refuse(vault, provisioned(vault), answer, "^msk: its check value")
    keystore = provisioned(vault, tolerated=policy.DEFAULT | Tolerated.ECB_KCV)
    installed(vault, keystore, answer)
    assert keystore.open(encode(seal(host.keys[Role.MSK], b"x", os.urandom, kcv=legacy)), limit=9) == b"x"
    kek = host.answer(kek=replace(host.wrapped(Role.KEK), kcv=ecb_kcv(host.keys[Role.KEK], 3)))
    refuse(vault, keystore, kek, "^kek: its check value")


def test_swapped_msk_and_tdk_are_noticed_though_their_headers_are_equal(vault: Vault, keystore: Keystore) -> None:
    host = HostKeys(ZMK, headers={**HEADERS, Role.TDK: HEADERS[Role.MSK]})
    answer = host.answer()
    msk, tdk = answer.keys[Role.MSK], answer.keys[Role.TDK]
    swapped = {
        **answer.keys,
        Role.MSK: replace(msk, key_block=tdk.key_block),
        Role.TDK: replace(tdk, key_block=msk.key_block),
    }
    refuse(vault, keystore, replace(answer, keys=swapped), "^msk: its check value")


@pytest.mark.parametrize(
    ("role", "other"),
    [
        (Role.TMK, Role.ZMK),
        (Role.KEK, Role.TMK),
        (Role.MSK, Role.ZMK),
        (Role.MSK, Role.KEK),
        (Role.TPK, Role.MSK),
        (Role.TDK, Role.MSK),
        (Role.MAC, Role.TPK),
    ],
)
def test_no_two_roles_may_hold_the_same_key(
    vault: Vault, keystore: Keystore, host: HostKeys, role: Role, other: Role
) -> None:
    host.keys[role] = host.keys[other]
    refuse(vault, keystore, host.answer(), f"^{role}: it is the same key as the {other}")


def test_the_mac_key_may_not_be_the_identity_secret(vault: Vault, keystore: Keystore, host: HostKeys) -> None:
    host.keys[Role.MAC] = SECRET
    refuse(vault, keystore, host.answer(), "^mac: it is the same key as the identity")


def test_a_set_is_whole_and_its_ids_differ(vault: Vault, keystore: Keystore, host: HostKeys) -> None:
    answer = host.answer()
    for role in PARENTS:
        rest = {each: key for each, key in answer.keys.items() if each is not role}
        refuse(vault, keystore, replace(answer, keys=rest), f"^{role}: it is missing")
    more = {**answer.keys, Role.ZMK: answer.keys[Role.TMK]}
    refuse(vault, keystore, replace(answer, keys=more), "^zmk: it has no place")
    twice = host.wrapped(Role.TDK, key_id="msk-1")
    refuse(vault, keystore, host.answer(tdk=twice), "^tdk: it has the key id of the msk")
    refuse(vault, keystore, host.answer(""), "^key set: its id")
    refuse(vault, keystore, host.answer(expires_at=NOW), "^key set 'ks-1': it has expired")
    refuse(vault, keystore, replace(answer, issued_at=NOW + 2 * DAY), "^key set 'ks-1': it has expired")


def test_a_key_that_is_not_wanted_is_checked_and_not_kept(vault: Vault, keystore: Keystore, host: HostKeys) -> None:
    bad = host.answer(tpk=host.wrapped(Role.TPK, kcv="000000"))
    with vault.change() as draft:
        with pytest.raises(KeyPolicyError, match=r"^tpk: "):
            keystore.install(draft, bad, NOW, discard=frozenset({Role.TPK}))
        keystore.install(draft, host.answer(), NOW, discard=frozenset({Role.TPK}))
    assert host.keys[Role.TPK] not in (vault.get("key_sets") or b"")
    with pytest.raises(KeystoreError, match="tpk: this key is not kept"):
        keystore.pin_block("1234", "4761739001010119")
    assert keystore.open(keystore.seal(b"x"), limit=9) == b"x"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(list(PARENTS)), st.data())
def test_a_strangers_key_set_is_refused_with_a_typed_error(
    vault: Vault, host: HostKeys, role: Role, data: st.DataObject
) -> None:
    keystore = provisioned(vault)
    good = host.wrapped(role)
    at = data.draw(st.integers(0, len(good.key_block) - 1))
    changed = good.key_block[:at] + data.draw(st.text(max_size=3)) + good.key_block[at + 1 :]
    key = WrappedKey(data.draw(st.text(max_size=9)), changed, data.draw(st.text(max_size=10)))
    with vault.change() as draft, pytest.raises((KeyBlockError, KeyPolicyError)):
        keystore.install(draft, host.answer(**{role: key}), NOW)


# --- rotation -----------------------------------------------------------------------------------------------


def test_the_set_before_goes_on_opening_and_signing(vault: Vault, keyed: Keystore, host: HostKeys) -> None:
    old, new = host, HostKeys(ZMK)
    sealed = keyed.seal(b"under the old")
    installed(vault, keyed, new.answer("ks-2", expires_at=NOW + 2 * DAY))
    assert keyed.key_set_id == "ks-2"
    assert (keyed.holds("ks-1"), keyed.holds("ks-2"), keyed.holds("ks-3")) == (True, True, False)

    assert open_envelope(new.keys[Role.MSK], keyed.seal(b"x"), limit=9) == b"x"
    assert open_envelope(old.keys[Role.MSK], keyed.seal(b"x", "ks-1"), limit=9) == b"x"
    assert keyed.sign_request(b"x", "ks-1") == hmac_sha256(old.keys[Role.MAC], b"x")
    assert keyed.sign_request(b"x") == hmac_sha256(new.keys[Role.MAC], b"x")
    assert keyed.seal_card(b"x", "ks-1")["key_kcv"] == old.kcv(Role.TDK)
    assert keyed.pin_block("1234", "4761739001010119", "ks-1")["key_kcv"] == old.kcv(Role.TPK)
    assert keyed.mac_key_id("ks-1") == "mac-1"

    assert keyed.open(sealed, limit=99, key_set_id="ks-1") == b"under the old"
    with pytest.raises(EnvelopeError):
        keyed.open(
            encode(seal(old.keys[Role.MSK], b"x", os.urandom, kcv=old.kcv(Role.MSK))), limit=9, key_set_id="ks-2"
        )
    with pytest.raises(KeystoreError, match="'ks-0' is not held"):
        keyed.open(sealed, limit=99, key_set_id="ks-0")
    for each in (old, new):
        msk, kcv = each.keys[Role.MSK], each.kcv(Role.MSK)
        assert keyed.open(encode(seal(msk, b"x", os.urandom, kcv=kcv)), limit=9) == b"x"
    assert [fact.key_set_id for fact in keyed.facts()] == [None, None, *["ks-2"] * 6, *["ks-1"] * 6]


def test_an_envelope_without_a_kcv_is_never_opened_to_noise(vault: Vault, keyed: Keystore, host: HostKeys) -> None:
    """Once in 256 times a wrong key gives good padding; what it pads is not UTF-8."""
    installed(vault, keyed, HostKeys(ZMK).answer("ks-2"))
    payload = '{"name":"Καφές"}'.encode()
    for _ in range(2000):
        assert keyed.open(encode(seal(host.keys[Role.MSK], payload, os.urandom)), limit=99) == payload


def test_a_third_set_replaces_the_first(vault: Vault, keyed: Keystore) -> None:
    installed(vault, keyed, HostKeys(ZMK).answer("ks-2"))
    installed(vault, keyed, HostKeys(ZMK).answer("ks-3"))
    assert [keyed.holds(f"ks-{n}") for n in (1, 2, 3)] == [False, True, True]


def test_the_same_set_again_is_no_rotation(vault: Vault, keyed: Keystore, host: HostKeys) -> None:
    installed(vault, keyed, HostKeys(ZMK).answer("ks-2"))
    installed(vault, keyed, HostKeys(ZMK).answer("ks-2"))
    assert keyed.key_set_id == "ks-2"
    assert keyed.holds("ks-1")


def test_an_expired_set_is_not_carried_on(vault: Vault, keyed: Keystore) -> None:
    with vault.change() as draft:
        answer = HostKeys(ZMK).answer("ks-2", expires_at=NOW + 9 * DAY)
        keyed.install(draft, answer, NOW + DAY)
    assert not keyed.holds("ks-1")


def test_a_set_that_has_expired_by_now_is_not_installed(vault: Vault, keyed: Keystore) -> None:
    for expires_at in (NOW + DAY, NOW + 2 * DAY):
        with vault.change() as draft, pytest.raises(KeyPolicyError, match="expired already"):
            keyed.install(draft, HostKeys(ZMK).answer("ks-2", expires_at=expires_at), NOW + 2 * DAY)
    assert keyed.key_set_id == "ks-1"


def test_a_superseded_set_is_dropped_when_it_expires(vault: Vault, keyed: Keystore) -> None:
    installed(vault, keyed, HostKeys(ZMK).answer("ks-2", expires_at=NOW + 2 * DAY))
    for moment, dropped in ((NOW, False), (NOW + DAY, True), (NOW + DAY, False)):
        with vault.change() as draft:
            assert keyed.drop_superseded(draft, moment) is dropped
    assert (keyed.holds("ks-1"), keyed.holds("ks-2")) == (False, True)
    with vault.change() as draft:
        keyed.forget_key_sets(draft)
    assert keyed.key_set_id is None
    assert keyed.identity_key_id == "id-1"


def test_keys_of_a_change_that_fails_are_not_used(vault: Vault, keyed: Keystore) -> None:
    with contextlib.suppress(LookupError), vault.change() as draft:
        keyed.install(draft, HostKeys(ZMK).answer("ks-2"), NOW)
        raise LookupError
    assert keyed.key_set_id == "ks-1"


def test_a_record_of_another_version_is_a_typed_error(vault: Vault, keyed: Keystore) -> None:
    with vault.change() as draft:
        draft.records["key_sets"] = msgspec.msgpack.encode({"current": 1})
    with pytest.raises(KeystoreError, match="another version"):
        keyed.seal(b"x")


def test_an_envelope_that_does_not_open_leaves_no_trace_of_the_key(keyed: Keystore, host: HostKeys) -> None:
    forged = envelope.seal(host.keys[Role.MSK], b"x", os.urandom)
    for body in (b"", b"{}", encode({**forged, "ciphertext": "00" * 16}), encode(forged)):
        with pytest.raises(EnvelopeError) as caught:
            keyed.open(body, limit=0)
        assert caught.value.__context__ is None
