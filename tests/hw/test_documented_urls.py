"""Every URL of a reader that the pages show is one that a reader is made from."""

from __future__ import annotations

import re

import pytest

from hw.reader import DRIVERS, open_reader
from tests.hil.emulated import ROOT

PAGES = ("README.md", "docs/wiring.md", "docs/operations.md")
_URL = re.compile(rf"(?:{'|'.join((*DRIVERS, 'sim'))})(?:\+\w+)?://[^\s`)…]+")

TEXT = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
SHOWN = sorted({url.rstrip(".,;:") for url in _URL.findall(TEXT)})


@pytest.mark.parametrize("url", SHOWN)
def test_it_names_a_reader(url: str) -> None:
    reader = open_reader(url)
    assert reader.url == url
    assert any((reader.capabilities.contact, reader.capabilities.contactless, reader.capabilities.stripe))


def test_they_were_found() -> None:
    drivers = {url.partition(":")[0].partition("+")[0] for url in SHOWN}
    assert drivers == {*DRIVERS, "sim"}
