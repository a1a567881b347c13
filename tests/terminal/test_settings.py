from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal import settings as module
from terminal.errors import SettingsError
from terminal.settings import check_url, is_loopback, load, parse, save


def test_no_file_means_the_defaults(tmp_path):
    found = load(tmp_path)
    assert found.home == str(tmp_path)
    assert found.host.url == "https://api.viopay.io"
    assert not found.host.loopback


def test_what_is_saved_is_loaded_and_the_rest_is_left(tmp_path):
    (tmp_path / module.FILE_NAME).write_text('reader = "magstripe:///dev/ttyUSB0"\n[host]\nread_timeout = 9.0\n')
    save(tmp_path, "http://127.0.0.1:8080", "/etc/till/credentials")
    found = load(tmp_path)
    assert (found.host.url, found.host.read_timeout) == ("http://127.0.0.1:8080", 9.0)
    assert (found.reader, found.credentials_file) == ("magstripe:///dev/ttyUSB0", "/etc/till/credentials")
    assert found.host.loopback


def test_what_is_saved_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def watched(descriptor):
        flushed.append((os.fstat(descriptor).st_size, (tmp_path / module.FILE_NAME).exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    save(tmp_path, "http://127.0.0.1:8080", None)
    assert flushed == [((tmp_path / module.FILE_NAME).stat().st_size, False)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("unknown = 1", "unknown"),
        ("[host]\nurl = 5", "host.url"),
        ("[host]\nattempts = 0", "host.attempts"),
        ("[host]\nsignature_scheme = 'other'", "signature_scheme"),
        ("pairing_poll = 2.0", "pairing_poll"),
        ("pairing_poll = 6.0", "pairing_poll"),
        ("[host", "settings.toml"),
        ("[max_amounts]\nEURO = 1000", "max_amounts.EURO"),
        ("[max_amounts]\nEUR = -1", "max_amounts.EUR"),
        ("[host]\nurl = 'http://api.viopay.io'", "plain http"),
    ],
)
def test_what_makes_no_sense_is_named(text, named):
    with pytest.raises(SettingsError, match=named):
        parse(text)


def test_a_name_that_is_none_leads_to_those_that_are():
    with pytest.raises(SettingsError, match=r"settings\.toml: .*raeder") as refused:
        parse("raeder = 'sim://visa-credit'")
    assert "docs/operations.md" in refused.value.advice


def test_a_file_does_not_say_where_it_is(tmp_path):
    (tmp_path / module.FILE_NAME).write_text('home = "/elsewhere"\n')
    with pytest.raises(SettingsError, match="home is the folder that this file is in"):
        load(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / module.FILE_NAME).mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:9", "http://127.8.8.8", "https://api.viopay.io"],
)
def test_https_anywhere_and_http_on_this_machine(url):
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://[::1].evil.example",
        "http://evil.example[::1]",
        "https://[::1]evil.example",
        "ftp://127.0.0.1",
        "https://",
        "https://user:word@api.viopay.io",
        "https://api.viopay.io?x=1",
        "http://127.0.0.1:99999",
        "",
    ],
)
def test_no_other_url(url):
    with pytest.raises(SettingsError):
        check_url(url)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_an_error(text):
    with contextlib.suppress(SettingsError):
        check_url(text)
        assert text.startswith(("http://", "https://", "HTTP")) or is_loopback(text)


@given(st.text(max_size=200))
def test_any_document_is_settings_or_an_error(text):
    with contextlib.suppress(SettingsError):
        parse(text)
