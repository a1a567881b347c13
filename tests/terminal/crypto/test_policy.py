"""What each role takes and does, over every usage, algorithm and mode that there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from terminal.crypto.kcv import aes_kcv, ecb_kcv, hmac_kcv
from terminal.crypto.keyblock_header import ALGORITHMS, EXPORTABILITY, MODES, USAGES, Header, OptionalBlock
from terminal.crypto.policy import DEFAULT, KEY_LENGTH, Operation, Role, Tolerated, check, kcv_methods, may, require
from terminal.errors import KeyPolicyError

HM = (OptionalBlock("HM", "21"),)
EVERYTHING = ~Tolerated.NOTHING

# The VioPay POS API's key policy, written out.
STRICT = {
    Role.TMK: {"K1/A/D"},
    Role.KEK: {"K1/A/D"},
    Role.MSK: {"D0/A/B"},
    Role.TDK: {"D0/A/E", "D3/A/E"},
    Role.TPK: {"P0/A/E"},
    Role.MAC: {"M7/H/G", "M7/H/C"},
}
BY_FLAG = {
    Tolerated.K0_FOR_KEK: {Role.TMK: {"K0/A/D"}, Role.KEK: {"K0/A/D"}},
    Tolerated.BOTH_DIRECTIONS_KEK: {Role.TMK: {"K1/A/B"}, Role.KEK: {"K1/A/B"}},
    Tolerated.K0_FOR_KEK | Tolerated.BOTH_DIRECTIONS_KEK: {Role.TMK: {"K0/A/B"}, Role.KEK: {"K0/A/B"}},
    Tolerated.BOTH_DIRECTIONS_TDK: {Role.TDK: {"D0/A/B", "D3/A/B"}},
    Tolerated.MODE_N_HMAC: {Role.MAC: {"M7/H/N"}},
    Tolerated.M6_HMAC: {Role.MAC: {"M6/A/G", "M6/A/C"}},
    Tolerated.MODE_N_HMAC | Tolerated.M6_HMAC: {Role.MAC: {"M6/A/N"}},
}
PROPER = {
    Role.TMK: Header("D", "K1", "A", "D"),
    Role.KEK: Header("D", "K1", "A", "D"),
    Role.MSK: Header("D", "D0", "A", "B"),
    Role.TPK: Header("D", "P0", "A", "E"),
    Role.TDK: Header("D", "D0", "A", "E"),
    Role.MAC: Header("D", "M7", "H", "G", blocks=HM),
}
roles = pytest.mark.parametrize("role", PROPER)
OPERATIONS = {
    (Role.ZMK, "D"): {Operation.UNWRAP},
    (Role.ZMK, "B"): {Operation.UNWRAP},
    (Role.TMK, "D"): {Operation.UNWRAP},
    (Role.TMK, "B"): {Operation.UNWRAP},
    (Role.KEK, "D"): {Operation.UNWRAP},
    (Role.KEK, "B"): {Operation.UNWRAP},
    (Role.MSK, "B"): {Operation.ENCRYPT, Operation.DECRYPT},
    (Role.MSK, "E"): {Operation.ENCRYPT},
    (Role.MSK, "D"): {Operation.DECRYPT},
    (Role.TPK, "E"): {Operation.PIN},
    (Role.TDK, "E"): {Operation.ENCRYPT},
    (Role.TDK, "B"): {Operation.ENCRYPT},
    (Role.MAC, "G"): {Operation.SIGN},
    (Role.MAC, "C"): {Operation.SIGN, Operation.VERIFY},
    (Role.MAC, "N"): {Operation.SIGN, Operation.VERIFY},
    (Role.MAC, "V"): {Operation.VERIFY},
    (Role.IDENTITY, "G"): {Operation.SIGN},
    (Role.IDENTITY, "C"): {Operation.SIGN},
    (Role.IDENTITY, "N"): {Operation.SIGN},
}


def taken(role: Role, tolerated: Tolerated) -> set[str]:
    """The headers that this role takes, found by trying every one."""
    found = set()
    for usage, algorithm, mode in product([*USAGES, "10"], [*ALGORITHMS, "1"], [*MODES, "1"]):
        try:
            check(role, Header("D", usage, algorithm, mode, blocks=HM), 32, tolerated)
        except KeyPolicyError:
            continue
        found.add(f"{usage}/{algorithm}/{mode}")
    return found


def wanted(role: Role, tolerated: Tolerated) -> set[str]:
    headers = set(STRICT.get(role, set()))
    for flags, more in BY_FLAG.items():
        if flags in tolerated:
            headers |= more.get(role, set())
    return headers


@pytest.mark.parametrize("tolerated", [Tolerated.NOTHING, DEFAULT, EVERYTHING, *Tolerated], ids=str)
def test_each_role_takes_what_the_policy_says_and_nothing_else(tolerated):
    for role in Role:
        assert taken(role, tolerated) == wanted(role, tolerated)


def test_what_is_tolerated_unless_one_says_otherwise():
    assert set(DEFAULT) == {Tolerated.K0_FOR_KEK, Tolerated.BOTH_DIRECTIONS_KEK, Tolerated.BOTH_DIRECTIONS_TDK}


@pytest.mark.parametrize("role", [Role.ZMK, Role.IDENTITY])
def test_what_is_entered_by_hand_does_not_come_in_a_key_block(role):
    with pytest.raises(KeyPolicyError, match=f"^{role}: its key does not come in a key block"):
        check(role, PROPER[Role.TMK], 32, EVERYTHING)


@pytest.mark.parametrize("mode", ["S", "G", "C", "V", "T", "B", "D", "N"])
def test_a_pin_key_of_any_other_mode_is_refused(mode):
    with pytest.raises(KeyPolicyError) as caught:
        check(Role.TPK, Header("D", "P0", "A", mode), 32, EVERYTHING)
    assert str(caught.value) == f"tpk: a key of P0/A mode {mode} is not allowed for this role (wants P0/A mode E)"
    assert caught.value.advice


def test_no_role_takes_the_proper_key_of_another_kind():
    for role, other in product(PROPER, PROPER):
        if PROPER[role] != PROPER[other]:
            with pytest.raises(KeyPolicyError, match=f"^{role}: "):
                check(role, PROPER[other], 32, Tolerated.NOTHING)


def test_a_message_key_passes_for_a_data_key_where_both_directions_are_tolerated():
    # Their headers are equal then: what tells them apart is the key id, the KCV, and that no two keys are the same.
    check(Role.TDK, PROPER[Role.MSK], 32, DEFAULT)
    with pytest.raises(KeyPolicyError):
        check(Role.MSK, PROPER[Role.TDK], 32, EVERYTHING)


def test_a_refusal_names_the_flag_that_is_missing():
    with pytest.raises(KeyPolicyError, match=r"without MODE_N_HMAC$"):
        check(Role.MAC, Header("D", "M7", "H", "N", blocks=HM), 32)
    with pytest.raises(KeyPolicyError, match=r"without MODE_N_HMAC and M6_HMAC$"):
        check(Role.MAC, Header("D", "M6", "A", "N"), 32)
    with pytest.raises(KeyPolicyError, match=r"without M6_HMAC$"):
        check(Role.MAC, Header("D", "M6", "A", "N"), 32, Tolerated.MODE_N_HMAC)


@roles
@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_every_key_has_32_bytes(role, length):
    check(role, PROPER[role], 32)
    with pytest.raises(KeyPolicyError, match=rf"^{role}: its key has {length} bytes \(wants 32\)"):
        check(role, PROPER[role], length, EVERYTHING)


@roles
def test_every_key_comes_in_version_d(role):
    with pytest.raises(KeyPolicyError, match=f"^{role}: its key block has version B"):
        check(role, replace(PROPER[role], version="B"), 32, EVERYTHING)


@roles
@pytest.mark.parametrize("exportability", [*EXPORTABILITY, *"0123456789"])
def test_no_key_may_leave_under_an_untrusted_one(role, exportability):
    header = replace(PROPER[role], exportability=exportability)
    if exportability in "NE":
        check(role, header, 32)
    else:
        with pytest.raises(KeyPolicyError, match=f"^{role}: exportability {exportability} "):
            check(role, header, 32, EVERYTHING)


@roles
def test_a_component_is_not_a_key(role):
    check(role, replace(PROPER[role], key_version="17"), 32)
    with pytest.raises(KeyPolicyError, match=f"^{role}: .*component"):
        check(role, replace(PROPER[role], key_version="c1"), 32, EVERYTHING)


@pytest.mark.parametrize("hash", ["10", "20", "22", "23", "31", "21 ", "", None])
@pytest.mark.parametrize("mode", ["G", "C", "N"])
def test_an_hmac_key_is_for_sha_256(hash, mode):
    blocks = () if hash is None else (OptionalBlock("HM", hash),)
    with pytest.raises(KeyPolicyError, match=r"^mac: .*SHA-256"):
        check(Role.MAC, Header("D", "M7", "H", mode, blocks=blocks), 32, EVERYTHING)


def test_each_role_does_what_it_is_for_and_nothing_else():
    for role, mode, operation in product(Role, [*MODES, "1", "", "b"], Operation):
        allowed = operation in OPERATIONS.get((role, mode), set())
        assert may(role, mode, operation) == allowed, (role, mode, operation)
        if allowed:
            require(role, mode, operation)
        else:
            with pytest.raises(KeyPolicyError, match=f"^{role}: a key of mode '{mode}' in this role must not "):
                require(role, mode, operation)


def test_every_key_that_can_be_installed_can_be_used():
    for role in PROPER:
        for header in wanted(role, EVERYTHING):
            assert any(may(role, header[-1], operation) for operation in Operation)


def test_a_terminal_wraps_no_keys():
    assert not any(may(role, mode, Operation.WRAP) for role, mode in product(Role, MODES))


@pytest.mark.parametrize(
    ("header", "plain", "with_ecb"),
    [
        (Header("D", "K1", "A", "D"), (aes_kcv,), (aes_kcv,)),
        (Header("D", "K0", "A", "D"), (aes_kcv,), (aes_kcv,)),
        (Header("D", "M6", "A", "G"), (aes_kcv,), (aes_kcv,)),
        (Header("D", "M7", "H", "G"), (hmac_kcv,), (hmac_kcv,)),
        (Header("D", "D0", "A", "B"), (aes_kcv,), (aes_kcv, ecb_kcv)),
        (Header("D", "D3", "A", "E"), (aes_kcv,), (aes_kcv, ecb_kcv)),
        (Header("D", "P0", "A", "E"), (aes_kcv,), (aes_kcv, ecb_kcv)),
    ],
    ids=lambda value: f"{value.usage}-{value.algorithm}" if isinstance(value, Header) else "",
)
def test_which_check_values_vouch_for_a_key(header, plain, with_ecb):
    assert kcv_methods(header) == plain
    assert kcv_methods(header, EVERYTHING & ~Tolerated.ECB_KCV) == plain
    assert kcv_methods(header, Tolerated.ECB_KCV) == with_ecb


@pytest.mark.parametrize("role", PROPER)
def test_a_block_that_was_for_storage_only_is_refused(role):
    check(role, replace(PROPER[role], key_context="2"), KEY_LENGTH)
    with pytest.raises(KeyPolicyError, match=f"^{role}: key context 1 "):
        check(role, replace(PROPER[role], key_context="1"), KEY_LENGTH)
