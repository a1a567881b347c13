"""Key blocks, against the blocks that the standards publish and against psec in both directions."""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import replace
from pathlib import Path

import psec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from terminal.crypto.keyblock import KEY_SIZES, unwrap, wrap
from terminal.crypto.keyblock_header import (
    ALGORITHMS,
    EXPORTABILITY,
    MAX_LENGTH,
    MODES,
    USAGES,
    Header,
    OptionalBlock,
    Tolerance,
    parse_header,
)
from terminal.errors import KeyBlockError

# psec still imports triple DES from where `cryptography` no longer wants it, and gives it short keys.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning:psec.des"
)

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "tr31.json").read_text())["vectors"]
published = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])

EVERYTHING = Tolerance.LOWER_CASE_HEX | Tolerance.RESERVED_FIELD
UNVERIFIED = "key block: it does not verify under this key"
SIZE = {"B": 8, "D": 16}
KBPK = {"B": bytes(range(0x40, 0x50)), "D": bytes(range(0x80, 0xA0))}
KEY = bytes(range(0xC0, 0xE0))
PIN_KEY = Header("D", "P0", "A", "E")
BLOCKS = (OptionalBlock("HM", "21"), OptionalBlock("LB", "a label, of any length"))

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
ALPHANUMERIC = st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
IDS = st.text(ALPHANUMERIC, min_size=2, max_size=2).filter(lambda id: id.upper() != "PB")
DATA = st.text(PRINTABLE, max_size=40) | st.text(PRINTABLE, min_size=245, max_size=300)


def _bytes(*sizes: int) -> st.SearchStrategy[bytes]:
    return st.sampled_from(sizes).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@st.composite
def headers(draw: st.DrawFn, versions: str = "BD") -> Header:
    blocks = draw(st.lists(st.builds(OptionalBlock, IDS, DATA), max_size=4, unique_by=lambda block: block.id))
    return Header(
        version=draw(st.sampled_from(versions)),
        usage=draw(st.sampled_from(sorted(USAGES)) | st.from_regex("[0-9]{2}", fullmatch=True)),
        algorithm=draw(st.sampled_from(sorted(ALGORITHMS)) | st.sampled_from("0123456789")),
        mode=draw(st.sampled_from(sorted(MODES)) | st.sampled_from("0123456789")),
        key_version=draw(st.text(ALPHANUMERIC, min_size=2, max_size=2)),
        exportability=draw(st.sampled_from(sorted(EXPORTABILITY)) | st.sampled_from("0123456789")),
        blocks=tuple(blocks),
    )


def keys_for(header: Header) -> st.SearchStrategy[bytes]:
    sizes = KEY_SIZES.get(header.algorithm)
    return _bytes(*sizes) if sizes else st.binary(min_size=1, max_size=80)


def kbpks_for(header: Header) -> st.SearchStrategy[bytes]:
    return _bytes(16, 24) if header.version == "B" else _bytes(16, 24, 32)


def forge(kbpk: bytes, text: str, payload: bytes, *, flip: int = 0) -> str:
    """A block of any header and any clear payload, with a right MAC (`flip` spoils it), made by psec's primitives.

    The length field of the header is filled in.
    """
    tools = psec.tr31.KeyBlock(kbpk)
    size = SIZE[text[0]]
    text = f"{text[0]}{len(text) + 2 * len(payload) + 2 * size:04}{text[5:]}"
    if text[0] == "B":
        kbek, kbak = tools._b_derive()
        mac = tools._b_generate_mac(kbak, text, payload)
        encrypt = psec.des.encrypt_tdes_cbc
    else:
        kbek, kbak = tools._d_derive()
        mac = tools._d_generate_mac(kbak, text, payload)
        encrypt = psec.aes.encrypt_aes_cbc
    mac = bytes([mac[0] ^ flip]) + mac[1:]
    return text + (encrypt(kbek, mac, payload) + mac).hex().upper()


def payload_of(kbpk: bytes, block: str) -> bytes:
    """The clear payload, by psec's primitives."""
    tools = psec.tr31.KeyBlock(kbpk)
    start = tools.header.load(block)
    size = SIZE[block[0]]
    binary = bytes.fromhex(block[start:])
    if block[0] == "B":
        return psec.des.decrypt_tdes_cbc(tools._b_derive()[0], binary[-size:], binary[:-size])
    return psec.aes.decrypt_aes_cbc(tools._d_derive()[0], binary[-size:], binary[:-size])


def a_block(version: str, blocks: tuple[OptionalBlock, ...] = BLOCKS) -> str:
    header = replace(PIN_KEY, version=version, blocks=blocks)
    return wrap(KBPK[version], header, KEY, os.urandom)


def refused(block: str, because: str = "^key block: ", tolerances: Tolerance = Tolerance.STRICT) -> str:
    with pytest.raises(KeyBlockError, match=because) as caught:
        unwrap(KBPK.get(block[:1], KBPK["D"]), block, tolerances)
    return str(caught.value)


# What the standards publish


@published
def test_published_blocks_unwrap(vector):
    header, key = unwrap(bytes.fromhex(vector["kbpk"]), vector["block"])
    assert key == bytes.fromhex(vector["key"])
    assert header == parse_header(vector["block"])


@published
def test_published_blocks_are_made_again_to_the_letter(vector):
    kbpk, key = bytes.fromhex(vector["kbpk"]), bytes.fromhex(vector["key"])
    padding = payload_of(kbpk, vector["block"])[2 + len(key) :]
    masked = None if "X9.143" in vector["source"] else len(key)  # TR-31:2018 did not hide the length yet
    header = parse_header(vector["block"])
    made = wrap(kbpk, header, key, lambda n: padding[:n], masked_length=masked)
    assert made == vector["block"]


def test_the_header_of_a_published_block():
    assert parse_header(VECTORS[1]["block"]) == Header(
        version="B",
        usage="B0",
        algorithm="T",
        mode="X",
        key_version="12",
        exportability="S",
        blocks=(OptionalBlock("KS", "00604B120F9292800000"),),
    )


# psec, in both directions


@given(st.data())
def test_psec_unwraps_what_we_wrap(data):
    header = data.draw(headers())
    kbpk, key = data.draw(kbpks_for(header)), data.draw(keys_for(header))
    theirs, found = psec.tr31.unwrap(kbpk, wrap(kbpk, header, key, os.urandom))
    assert found == key
    assert (theirs.version_id, theirs.key_usage, theirs.algorithm, theirs.mode_of_use) == (
        header.version,
        header.usage,
        header.algorithm,
        header.mode,
    )
    assert (theirs.version_num, theirs.exportability) == (header.key_version, header.exportability)
    assert dict(theirs.blocks) == {block.id: block.data for block in header.blocks}


@given(st.data())
def test_we_unwrap_what_psec_wraps(data):
    header = data.draw(headers())
    kbpk, key = data.draw(kbpks_for(header)), data.draw(keys_for(header))
    masked = data.draw(st.none() | st.integers(0, 100))
    theirs = psec.tr31.Header(
        header.version, header.usage, header.algorithm, header.mode, header.key_version, header.exportability
    )
    for block in header.blocks:
        theirs.blocks[block.id] = block.data
    assert unwrap(kbpk, psec.tr31.wrap(kbpk, theirs, key, masked)) == (header, key)


@given(st.data())
def test_what_is_wrapped_unwraps(data):
    header = data.draw(headers())
    kbpk, key = data.draw(kbpks_for(header)), data.draw(keys_for(header))
    masked = data.draw(st.none() | st.integers(len(key), 100))
    block = wrap(kbpk, header, key, os.urandom, masked_length=masked)
    assert int(block[1:5]) == len(block)
    assert len(block) % SIZE[header.version] == 0
    assert unwrap(kbpk, block) == (header, key)
    assert parse_header(block) == header


# Nothing but the block itself unwraps


@pytest.mark.parametrize("tolerances", [Tolerance.STRICT, EVERYTHING], ids=["strict", "tolerant"])
@pytest.mark.parametrize("version", "BD")
def test_every_flipped_bit_is_refused(version, tolerances):
    block = a_block(version)
    for at, character in enumerate(block):
        for bit in range(8):
            flipped = chr(ord(character) ^ 1 << bit)
            if flipped.upper() == character and tolerances:
                continue  # hex of another case, which these tolerances allow
            refused(block[:at] + flipped + block[at + 1 :], tolerances=tolerances)


@given(st.sampled_from("BD"), st.data(), st.characters(codec="utf-8"))
def test_every_other_character_is_refused(version, data, character):
    block = a_block(version)
    at = data.draw(st.integers(0, len(block) - 1))
    assume(character != block[at])
    refused(block[:at] + character + block[at + 1 :])


@pytest.mark.parametrize("version", "BD")
def test_every_truncation_is_refused(version):
    block = a_block(version)
    for length in range(len(block)):
        refused(block[:length])
        with pytest.raises(KeyBlockError):  # and where the length field is put right
            unwrap(KBPK[version], f"{version}{length:04}{block[5:length]}"[:length])


@given(st.sampled_from("BD"), st.text(max_size=64), st.booleans())
def test_every_extension_is_refused(version, tail, put_right):
    assume(tail)
    block = a_block(version) + tail
    refused(f"{version}{len(block):04}{block[5:]}" if put_right else block)


@given(st.sampled_from("BD"), st.data())
def test_every_swap_is_refused(version, data):
    block = list(a_block(version))
    first, second = data.draw(st.tuples(*[st.integers(0, len(block) - 1)] * 2))
    assume(block[first] != block[second])
    block[first], block[second] = block[second], block[first]
    refused("".join(block))


@pytest.mark.parametrize("version", "BD")
def test_the_header_of_one_block_on_the_key_of_another_is_refused(version):
    key, other = (
        wrap(KBPK[version], Header(version, usage, "A", mode), KEY, os.urandom)
        for usage, mode in (("P0", "E"), ("D0", "B"))
    )
    for cut in range(5, 16):
        if key[:cut] != other[:cut]:
            assert refused(other[:cut] + key[cut:]) == UNVERIFIED


@given(st.data())
def test_another_protection_key_is_refused(data):
    version = data.draw(st.sampled_from("BD"))
    kbpk = data.draw(kbpks_for(replace(PIN_KEY, version=version)))
    # The lowest bit of each byte of a triple DES key is its parity, which the cipher does not read.
    assume(any(a & 0xFE != b & 0xFE for a, b in zip(kbpk, KBPK[version], strict=False)))
    with pytest.raises(KeyBlockError, match=UNVERIFIED):
        unwrap(kbpk, a_block(version))


# What is malformed without a key


@pytest.mark.parametrize(
    ("at", "value", "because"),
    [
        (0, "A", "version"),
        (0, "C", "version"),
        (0, "E", "version"),
        (0, "b", "version"),
        (0, "1", "version"),
        (1, "0000", "length field"),
        (1, "9999", "length field"),
        (1, " 208", "length field"),
        (1, "+208", "length field"),
        (5, "Z0", "'Z0' is no usage"),
        (5, "p0", "'p0' is no usage"),
        (5, "P9", "'P9' is no usage"),
        (5, "1A", "'1A' is no usage"),
        (7, "Z", "'Z' is no algorithm"),
        (7, "a", "'a' is no algorithm"),
        (8, "Z", "'Z' is no mode of use"),
        (8, " ", "' ' is no mode of use"),
        (9, "0 ", "key version"),
        (9, "-1", "key version"),
        (11, "Z", "'Z' is no exportability"),
        (12, "0x", "number of optional blocks"),
        (12, " 3", "number of optional blocks"),
        (14, "01", "reserved field"),
        (14, "30", "'3' is no key context"),
        (14, "A0", "'A' is no key context"),
    ],
)
@pytest.mark.parametrize("version", "BD")
def test_a_field_outside_its_table(version, at, value, because):
    block = a_block(version)
    block = block[:at] + value + block[at + len(value) :]
    refused(block, because)
    with pytest.raises(KeyBlockError, match=because):
        parse_header(block)


@pytest.mark.parametrize("version", "BD")
@pytest.mark.parametrize("field", ["usage", "algorithm", "mode", "exportability"])
def test_digits_are_left_to_private_agreements(version, field):
    header = replace(PIN_KEY, version=version, **{field: "10" if field == "usage" else "1"})
    assert unwrap(KBPK[version], wrap(KBPK[version], header, KEY, os.urandom)) == (header, KEY)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "A"},
        {"version": ""},
        {"usage": "\u0661\u0660"},
        {"usage": "P"},
        {"usage": "P00"},
        {"algorithm": ""},
        {"algorithm": "11"},
        {"mode": "\u00b2"},
        {"key_version": "0"},
        {"key_version": "\u00e91"},
        {"exportability": "NN"},
    ],
    ids=str,
)
def test_no_header_of_wrong_fields_can_be_made(fields):
    with pytest.raises(KeyBlockError):
        replace(PIN_KEY, **fields)


@pytest.mark.parametrize("text", ["", "D", "D0016P0AE00E0000"[:15], "D" * (MAX_LENGTH + 1), "D" * 1_000_000])
def test_a_text_of_impossible_length(text):
    refused(text, "fewer than 16 or more than 9999")


@pytest.mark.parametrize("text", ["D0016P0AE00E0000", "D0048P0AE00E0000" + "0" * 32, "B0032P0TE00E0000" + "0" * 16])
def test_a_block_without_a_payload(text):
    refused(text, "one each at least")


@pytest.mark.parametrize("character", ["\n", "\t", "\x7f", "\x00", "\u00e9", "\u0661", "\U0001f511"])
def test_only_printable_ascii(character):
    block = a_block("D")
    refused(block[:30] + character + block[31:], "printable ASCII")


@pytest.mark.parametrize("pair", ["  ", "GG", "0x", "+1", "_0", "-1"])
def test_only_hex_in_the_binary_part(pair):
    block = a_block("D", ())
    for at in (16, 60, len(block) - 2):
        refused(block[:at] + pair + block[at + 2 :], "hex")


@given(st.text())
@example("D0112P0AE00E0000" + "0" * 96)
def test_no_text_does_harm(text):
    for tolerances in (Tolerance.STRICT, EVERYTHING):
        refused(text, tolerances=tolerances)


@given(
    st.sampled_from("BD"),
    st.text(PRINTABLE, min_size=11, max_size=250),
    st.sampled_from([Tolerance.STRICT, *Tolerance, EVERYTHING]),
)
def test_no_text_of_the_right_length_does_harm(version, text, tolerances):
    refused(f"{version}{len(text) + 5:04}{text}", tolerances=tolerances)


@given(st.sampled_from("BD"), st.integers(0, 12), st.text("0123456789ABCDEFPB", max_size=200))
def test_no_optional_blocks_do_harm(version, count, text):
    refused(f"{version}{len(text) + 16:04}P0AE00N{count:02}00{text}", tolerances=EVERYTHING)


# Optional blocks


def test_the_longest_short_length_and_the_shortest_extended_one():
    for size, prefix in ((251, "LBFF"), (252, "LB00020106")):
        header = replace(PIN_KEY, blocks=(OptionalBlock("LB", "x" * size),))
        block = wrap(KBPK["D"], header, KEY, os.urandom)
        assert block[16:].startswith(prefix + "x")
        assert unwrap(KBPK["D"], block) == (header, KEY)


def test_the_padding_block_fills_whole_cipher_blocks_and_is_not_kept():
    payload_size = {"B": 40, "D": 48}  # two bytes of length, 32 of key, and what fills the cipher block
    for version, size in SIZE.items():
        for length in range(40):
            header = replace(PIN_KEY, version=version, blocks=(OptionalBlock("LB", "x" * length),))
            block = wrap(KBPK[version], header, KEY, os.urandom)
            text = f"LB{4 + length:02X}" + "x" * length
            if len(text) % size:
                filler = -(len(text) + 4) % size
                text += f"PB{4 + filler:02X}" + "0" * filler
            assert block[12:14] == ("02" if "PB" in text else "01")
            assert len(text) % size == 0
            assert block[16:].startswith(text)
            assert len(block) == 16 + len(text) + 2 * (payload_size[version] + size)
            assert unwrap(KBPK[version], block)[0].blocks == header.blocks


def test_the_data_of_an_optional_block():
    header = unwrap(KBPK["D"], a_block("D"))[0]
    assert header.block("HM") == "21"
    assert header.block("LB") == "a label, of any length"
    assert header.block("KS") is None
    assert header.block("PB") is None


@pytest.mark.parametrize(
    ("count", "blocks", "because"),
    [
        ("01", "LBxxLABELTEXT...", "hex"),
        ("01", "LB03LABELTEXT...", "shorter than its own length"),
        ("01", "LB01LABELTEXT...", "shorter than its own length"),
        ("01", "LBFFLABELTEXT...", "runs over the end"),
        ("01", "LB000400000010ab", "not of two bytes"),
        ("01", "LB00020009ABCDEF", "shorter than its own length"),
        ("01", "LB0002FFFFABCDEF", "runs over the end"),
        ("01", "LB0002+010ABCDEF", "hex"),
        ("01", "L!10LABELTEXT...", "two letters or digits"),
        ("01", "LB0FLABELTEXT..", "whole cipher blocks"),
        ("02", "HM0621PB04", "whole cipher blocks"),
        ("02", "PB1Axxxxxxxxxxxxxxxxxxxxxx" + "HM0621", "not the last"),
        ("02", "PB10xxxxxxxxxxxx" + "PB10xxxxxxxxxxxx", "not the last"),
        ("02", "LB10LABELTEXT..." + "LB10LABELTEXT...", "twice"),
    ],
)
def test_optional_blocks_that_are_malformed(count, blocks, because):
    payload = (256).to_bytes(2, "big") + KEY + bytes(14)
    refused(forge(KBPK["D"], f"D0000P0AE00N{count}00{blocks}", payload), because)


@pytest.mark.parametrize(
    "text", ["D0016P0AE00N0100", "D0018P0AE00N0100LB", "D0019P0AE00N0100LB1", "D0020P0AE00N0100LB00"]
)
def test_a_block_that_ends_in_an_optional_block(text):
    refused(text, "hex digits are missing|shorter than its own length|not of two bytes")


def test_more_optional_blocks_counted_than_there_are():
    block = a_block("D")
    for count in range(100):
        if f"{count:02}" != block[12:14]:
            refused(f"{block[:12]}{count:02}{block[14:]}")


def test_an_extended_length_where_a_short_one_would_do():
    payload = (256).to_bytes(2, "big") + KEY + bytes(14)
    header, key = unwrap(KBPK["D"], forge(KBPK["D"], "D0000P0AE00N0100LB00020010ABCDEF", payload))
    assert (header.blocks, key) == ((OptionalBlock("LB", "ABCDEF"),), KEY)


@pytest.mark.parametrize(
    ("id", "data"), [("L", ""), ("LBL", ""), ("L-", ""), ("\u00e9B", ""), ("LB", "\n"), ("LB", "\u00e9")]
)
def test_no_malformed_optional_block_can_be_made(id, data):
    with pytest.raises(KeyBlockError):
        OptionalBlock(id, data)


# What only the holder of the key can see: one message for all of it


@pytest.mark.parametrize(
    ("algorithm", "bits", "length"),
    [
        ("A", 255, 46),
        ("A", 257, 46),
        ("A", 0, 46),
        ("A", 64, 46),
        ("A", 160, 46),
        ("A", 320, 46),
        ("A", 384, 46),
        ("A", 0xFFFF, 46),
        ("T", 64, 46),
        ("T", 256, 46),
        ("D", 128, 46),
        ("H", 0, 46),
        ("H", 376, 46),
        ("H", 9, 46),
        ("A", 256, 30),
    ],
)
@pytest.mark.parametrize("version", "BD")
def test_a_wrong_length_says_no_more_than_a_wrong_mac(version, algorithm, bits, length):
    payload = bits.to_bytes(2, "big") + bytes(length)
    text = f"{version}0000D0{algorithm}B00N0000"
    assert refused(forge(KBPK[version], text, payload)) == UNVERIFIED
    assert refused(forge(KBPK[version], text, payload, flip=1)) == UNVERIFIED


@pytest.mark.parametrize("version", "BD")
def test_a_wrong_mac_on_a_right_payload(version):
    payload = (256).to_bytes(2, "big") + KEY + bytes(14)
    text = f"{version}0000P0AE00N0000"
    assert unwrap(KBPK[version], forge(KBPK[version], text, payload))[1] == KEY
    for bit in range(8):
        assert refused(forge(KBPK[version], text, payload, flip=1 << bit)) == UNVERIFIED


@pytest.mark.parametrize(("version", "right"), [("B", (16, 24)), ("D", (16, 24, 32))])
def test_a_protection_key_of_another_length(version, right):
    for size in range(40):
        if size not in right:
            with pytest.raises(KeyBlockError, match=f"this one has {size}$"):
                unwrap(bytes(size), a_block(version))
            with pytest.raises(KeyBlockError, match=f"this one has {size}$"):
                wrap(bytes(size), replace(PIN_KEY, version=version), KEY, os.urandom)


# Tolerances


def test_lower_case_hex_by_its_name_only():
    payload = (256).to_bytes(2, "big") + KEY + bytes(14)
    block = forge(KBPK["D"], "D0000P0AE00N0200LB0dLABELTEXTPB13xxxxxxxxxxxxxxx", payload)
    block = block[:48] + block[48:].lower()
    refused(block, "upper case")
    refused(block, "upper case", Tolerance.RESERVED_FIELD)
    header, key = unwrap(KBPK["D"], block, Tolerance.LOWER_CASE_HEX)
    assert (header.block("LB"), key) == ("LABELTEXT", KEY)


def test_a_reserved_field_by_its_name_only():
    payload = (256).to_bytes(2, "big") + KEY + bytes(14)
    block = forge(KBPK["D"], "D0000P0AE00N0001", payload)
    refused(block, "reserved field")
    refused(block, "reserved field", Tolerance.LOWER_CASE_HEX)
    assert unwrap(KBPK["D"], block, Tolerance.RESERVED_FIELD) == (replace(PIN_KEY, exportability="N"), KEY)
    changed = block[:14] + "02" + block[16:]
    assert refused(changed, tolerances=Tolerance.RESERVED_FIELD) == UNVERIFIED


@pytest.mark.parametrize("context", ["0", "1", "2"])
def test_a_key_context_is_kept_and_bound(context):
    header = replace(PIN_KEY, key_context=context)
    block = wrap(KBPK["D"], header, KEY, os.urandom)
    assert block[14:16] == context + "0"
    assert unwrap(KBPK["D"], block) == (header, KEY)
    other = "0" if context != "0" else "2"
    assert refused(block[:14] + other + block[15:]) == UNVERIFIED


# Wrapping


@pytest.mark.parametrize("version", "BD")
@pytest.mark.parametrize("algorithm", "AT")
def test_the_length_of_a_block_does_not_tell_the_length_of_the_key(version, algorithm):
    header = Header(version, "D0", algorithm, "B")
    lengths = {len(wrap(KBPK[version], header, KEY[:size], os.urandom)) for size in KEY_SIZES[algorithm]}
    assert len(lengths) == 1


def test_a_masked_length_can_be_chosen():
    header = Header("D", "M7", "H", "G", blocks=(OptionalBlock("HM", "21"),))
    lengths = {
        len(wrap(KBPK["D"], header, bytes(range(1, size + 1)), os.urandom, masked_length=64))
        for size in range(1, 65)
    }
    assert len(lengths) == 1
    with pytest.raises(KeyBlockError, match="not hidden in 31"):
        wrap(KBPK["D"], PIN_KEY, KEY, os.urandom, masked_length=31)


def test_the_padding_is_what_randomness_gave():
    asked = []

    def random(count: int) -> bytes:
        asked.append(count)
        return b"\xa5" * count

    block = wrap(KBPK["D"], PIN_KEY, KEY[:16], random)
    assert payload_of(KBPK["D"], block) == b"\x00\x80" + KEY[:16] + b"\xa5" * 30
    assert asked == [30]
    assert wrap(KBPK["D"], PIN_KEY, KEY, os.urandom) != wrap(KBPK["D"], PIN_KEY, KEY, os.urandom)


@pytest.mark.parametrize(
    ("algorithm", "size"), [("A", 0), ("A", 8), ("A", 31), ("A", 33), ("T", 8), ("T", 32), ("D", 16), ("H", 0)]
)
def test_a_key_that_its_algorithm_does_not_have(algorithm, size):
    with pytest.raises(KeyBlockError, match=f"{size} bytes are no key"):
        wrap(KBPK["D"], Header("D", "D0", algorithm, "B"), bytes(size), os.urandom)


def test_a_block_is_never_longer_than_its_length_field_can_say():
    def of(size: int) -> str:
        return wrap(KBPK["D"], replace(PIN_KEY, blocks=(OptionalBlock("LB", "x" * size),)), KEY, os.urandom)

    longest = of(9824)
    assert len(longest) == 9984
    assert unwrap(KBPK["D"], longest)[1] == KEY
    for size in (9841, 70_000):
        with pytest.raises(KeyBlockError, match="above 9999"):
            of(size)


def test_no_more_optional_blocks_than_their_field_can_count():
    def of(count: int) -> str:
        blocks = tuple(OptionalBlock(f"{number:02}", "") for number in range(count))
        return wrap(KBPK["D"], replace(PIN_KEY, blocks=blocks), KEY, os.urandom)

    assert len(parse_header(of(98)).blocks) == 98
    with pytest.raises(KeyBlockError, match="above 9999 or 99"):
        of(99)  # and one for padding


def test_the_padding_block_and_a_repeated_one_are_not_the_caller_s_to_give():
    with pytest.raises(KeyBlockError, match="never given"):
        replace(PIN_KEY, blocks=(OptionalBlock("PB", "000"),))
    with pytest.raises(KeyBlockError, match="twice"):
        replace(PIN_KEY, blocks=(OptionalBlock("LB", "a"), OptionalBlock("LB", "b")))


def test_a_component_is_told_from_a_key():
    assert replace(PIN_KEY, key_version="c1").is_component
    assert not replace(PIN_KEY, key_version="1c").is_component
    assert not PIN_KEY.is_component


# Secrets


def _said(call) -> str:
    with pytest.raises(KeyBlockError) as caught:
        call()
    error = caught.value
    return "".join(traceback.format_exception(error)) + repr(error) + error.advice


def test_no_key_byte_is_said_by_any_error():
    kbpk, key = os.urandom(32), os.urandom(32)
    block = wrap(kbpk, PIN_KEY, key, os.urandom)
    said = "".join(
        _said(call)
        for call in (
            lambda: unwrap(kbpk[:31], block),
            lambda: unwrap(os.urandom(32), block),
            lambda: unwrap(kbpk, block[:-1] + " "),
            lambda: unwrap(kbpk, block[:20]),
            lambda: wrap(kbpk[:31], PIN_KEY, key, os.urandom),
            lambda: wrap(kbpk, PIN_KEY, key[:31], os.urandom),
            lambda: wrap(kbpk, PIN_KEY, key, os.urandom, masked_length=1),
            lambda: unwrap(kbpk, forge(kbpk, "D0000P0AE00N0000", b"\xff\xff" + key + bytes(14))),
        )
    )
    for secret in (kbpk, key):
        for form in (repr(secret[:4])[2:-1], secret[:4].hex(), secret[:4].hex().upper()):
            assert form not in said


@given(st.binary(min_size=16, max_size=64), st.booleans())
def test_a_key_taken_for_a_key_block_is_not_repeated(key, upper):
    text = key.hex().upper() if upper else key.hex()
    with pytest.raises(KeyBlockError) as caught:
        parse_header(text)
    assert str(caught.value) in {
        "key block: its version is not B or D",
        "key block: its length field is not its length",
    }
