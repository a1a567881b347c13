"""What the host tells a terminal to be: typed, or refused by field."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.config import parse_config, parse_parameters
from terminal.errors import HostAnswerInvalid

LEAST = {"terminal": {"terminal_id": "TID-1", "device_id": "POS-1"}, "merchant": {"merchant_id": "m", "name": "n"}}


def test_a_field_that_is_missing_is_named():
    with pytest.raises(HostAnswerInvalid) as caught:
        parse_config(json.dumps(LEAST | {"merchant": {"name": "n"}}).encode())
    assert caught.value.field == "merchant"


def test_nesting_without_end_is_refused_like_any_other_nonsense():
    nested = json.dumps(LEAST)[:-1].encode() + b', "branding": {"a": ' + b"[" * 200_000
    with pytest.raises(HostAnswerInvalid, match="not JSON"):
        parse_config(nested)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.dictionaries(st.sampled_from(["terminal", "merchant", "version", "aids", "capks"]), inner)
            | st.lists(inner, max_size=3)
        ),
    ).map(lambda document: json.dumps(document).encode())
)
def test_only_typed_errors_come_out(plaintext):
    for parse in (parse_config, parse_parameters):
        with contextlib.suppress(HostAnswerInvalid):
            parse(plaintext)
