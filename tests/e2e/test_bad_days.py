"""Bad days of a terminal, with real processes and files: a second process, a full disk, a read-only one, a stop.

Whatever it is, it ends in a typed error that names it, no payment is taken twice, and once it is over the same
command with the same reference goes through.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terminal.crypto.vault_file import FILE_NAME as VAULT_FILE
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from tests.e2e.bad_days import Days, Ran
from tests.e2e.hosted import DEADLINE, TILL
from tests.e2e.shop import CARD, Shop, running, said

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of root")


@contextlib.contextmanager
def waiting(shop: Shop, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the terminal, and waits for a card that nobody presents."""
    with running(shop.home, "swipe", "--pty", "--every", "3600") as swipe:
        reader = said(swipe, "ready")["reader"]
        words = ("charge", "--minor", "1200", "--currency", "EUR", "--reader", reader)
        with running(shop.home, *words, before=before) as process:
            said(process, "card_wanted")
            yield process


class TestTwoProcesses:
    def test_the_second_is_refused_and_told_of_the_first(self, shop: Shop) -> None:
        with waiting(shop) as first:
            second = shop.charge("second")
            assert (second.code, second.error) == (2, "KeystoreError")
            assert f"process {first.pid}" in second.complained
            assert first.poll() is None
        assert shop.taken("second") == 0
        assert shop.charge("second").code == 0

    def test_those_that_only_look_are_not(self, shop: Shop) -> None:
        shop.charge("order")
        with waiting(shop):
            assert shop.days.till(shop.home, "status").said[-1]["level"] == "activated"
            assert shop.days.till(shop.home, "journal", "--verify").said[0]["payment"]["reference"] == "order"

    @pytest.mark.parametrize("pid", [1, os.getpid()], ids=["of init", "of somebody who is alive"])
    def test_a_number_in_the_lock_file_is_no_lock(self, shop: Shop, pid: int) -> None:
        (shop.home / f"{VAULT_FILE}.lock").write_text(str(pid))
        assert shop.charge("order").code == 0

    def test_nor_is_the_file_of_one_that_was_killed(self, shop: Shop) -> None:
        with waiting(shop) as first:
            first.kill()
            first.wait(DEADLINE)
            assert shop.charge("order").code == 0

    @as_root
    def test_nor_that_of_a_container_that_died(self, shop: Shop) -> None:
        container = ("unshare", "--pid", "--fork", "--kill-child")
        if subprocess.run([*container, "true"], capture_output=True).returncode:
            pytest.skip("no namespaces here")
        with waiting(shop, *container) as first:
            assert shop.charge("order").error == "KeystoreError"
            first.kill()
            first.wait(DEADLINE)
            until = time.monotonic() + DEADLINE  # the death of those inside follows on its own
            while (again := shop.charge("order")).code and time.monotonic() < until:
                assert again.error == "KeystoreError"
            assert again.code == 0
        assert shop.taken("order") == 1


class TestStopped:
    """SIGSTOP, for longer than any deadline, and SIGCONT."""

    LONGER = 2.5
    SETTINGS = "[host]\nread_timeout = 1.0\ncall_timeout = 1.5\nattempts = 1\n"

    def hurry(self, shop: Shop) -> None:
        file = shop.home / "settings.toml"
        file.write_text(file.read_text().replace("[host]\n", self.SETTINGS))

    @pytest.mark.parametrize("late", [0.5, 2.0], ids=["answered meanwhile", "answered too late"])
    def test_a_terminal_that_was_stopped_in_a_charge_charges_once(self, shop: Shop, late: float) -> None:
        self.hurry(shop)
        shop.faults({"match": {"call": "charge", "nth": 1}, "do": "delay", "seconds": late})
        words = ("charge", "--minor", "1200", "--currency", "EUR", "--manual", "--reference", "order")
        with running(shop.home, *words, typed=CARD) as process:
            said(process, "payment_changed", state="in_flight")
            process.send_signal(signal.SIGSTOP)
            time.sleep(self.LONGER)  # what happens here is that nothing happens
            process.send_signal(signal.SIGCONT)
            result = said(process, "result")
            assert process.wait(DEADLINE) == result["exit_code"]
        assert result["payment"]["state"] in ("approved", "in_doubt")
        shop.faults()
        again = shop.charge("order")
        assert (again.code, again.payment["id"]) == (0, result["payment"]["id"])
        assert shop.taken("order") == 1
        shop.check_books()

    def test_a_host_that_was_stopped_in_a_charge_charges_once(self, tmp_path: Path, days: Days) -> None:
        command = [*TILL, "host", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "host")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip().removeprefix("listening on ")
                shop = Shop(url, tmp_path / "home", days)
                shop.activate()
                self.hurry(shop)
                process.send_signal(signal.SIGSTOP)
                stopped = shop.charge("order")
                assert (stopped.code, stopped.payment["state"]) == (4, "in_doubt")
                process.send_signal(signal.SIGCONT)
                assert shop.charge("order").code == 0
                assert shop.taken("order") == 1
                shop.check_books()
            finally:
                process.kill()


TYPED = {
    "KeystoreError": 2,
    "JournalUnwritable": 4,
    "SettingsError": 2,
}
"""What a disk may end a command with, and the exit code."""


def check_error(ran: Ran) -> None:
    """It ended in an error of ours, which says what to do; not in one of this program."""
    assert TYPED.get(ran.error) == ran.code, ran
    assert ran.said[-1]["advice"]
    assert "Traceback" not in ran.complained


class TestFullDisk:
    def fill(self, shop: Shop, limits: range) -> int:
        """A charge with each limit, and again without; gives back how many did not go through at first."""
        failed = 0
        for limit in limits:
            reference = f"order-{limit}"
            full = shop.charge(reference, file_limit=limit)
            if full.code:
                failed += 1
                check_error(full)
            emptied = shop.charge(reference)
            assert emptied.code == 0, (limit, full, emptied)
            assert emptied.payment["state"] == "approved"
            assert shop.taken(reference) == 1, limit
        shop.check_books()
        return failed

    def test_a_disk_that_fills_in_a_charge_and_empties(self, shop: Shop) -> None:
        assert self.fill(shop, range(0, 48_000, 2_000)) >= 10

    @pytest.mark.slow
    def test_a_disk_that_fills_at_any_write_and_empties(self, shop: Shop) -> None:
        assert self.fill(shop, range(256, 40_000, 512)) >= 40

    def test_a_disk_that_fills_in_an_activation_and_empties(self, url: str, tmp_path: Path, days: Days) -> None:
        for limit in (0, 100, 1_000, 2_500, 5_000, 10_000, 20_000, 40_000):
            shop = Shop(url, tmp_path / str(limit), days)
            full = days.till(shop.home, "activate", file_limit=limit)
            if full.code:
                check_error(full)
            assert days.till(shop.home, "activate").code == 0, limit
            assert shop.charge("order").code == 0

    @as_root
    @pytest.mark.slow
    def test_a_small_disk_that_is_full_to_the_last_page(self, shop: Shop, tmp_path: Path) -> None:
        small = tmp_path / "small"
        with mounted(small, "tmpfs", "-o", "size=2m"):
            home = small / "home"
            shutil.copytree(shop.home, home)
            shop.home = home
            ballast, failed = small / "ballast", 0
            for pages in range(24):
                free = os.statvfs(small).f_bavail * 4096 - pages * 4096
                ballast.write_bytes(bytes(max(0, free)))
                reference = f"order-{pages}"
                full = shop.charge(reference)
                if full.code:
                    failed += 1
                    check_error(full)
                ballast.unlink()
                assert shop.charge(reference).code == 0, (pages, full)
                assert shop.taken(reference) == 1
            assert failed >= 3
            shop.check_books()


@contextlib.contextmanager
def mounted(folder: Path, kind: str, *words: str) -> Iterator[None]:
    """A file system of its own, or the skipping of the test."""
    folder.mkdir(exist_ok=True)
    source = [str(folder), "--bind"] if kind == "bind" else ["none", "-t", kind]
    if subprocess.run(["mount", *source, *words, str(folder)], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that everybody may enter. Pytest keeps its own to one user, and takes back what others grant."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def moved(shop: Shop, elsewhere: Path) -> None:
    """Move the home, with the path of its credentials in the settings."""
    home = elsewhere / "home"
    shutil.move(shop.home, home)
    settings = home / "settings.toml"
    settings.write_text(settings.read_text().replace(str(shop.home), str(home)))
    shop.home = home


class TestReadOnly:
    def looks(self, shop: Shop, user: int | None = None) -> None:
        """What only looks is not refused."""
        status = shop.days.till(shop.home, "status", user=user)
        assert status.code == 0, status
        assert status.said[-1]["level"] == "activated"
        listed = shop.days.till(shop.home, "journal", "--verify", user=user)
        assert listed.code == 0, listed
        assert listed.said[-1]["payments"] == 1

    def check(self, shop: Shop, user: int | None = None) -> None:
        refused = shop.charge("order", user=user)
        check_error(refused)
        assert shop.taken("order") == 0
        self.looks(shop, user)

    @as_root
    def test_a_file_system_that_is_mounted_read_only(self, shop: Shop) -> None:
        shop.charge("earlier")
        with mounted(shop.home, "bind"):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(shop.home)], check=True)
            self.check(shop)
        assert shop.charge("order").code == 0
        shop.check_books()

    @as_root
    def test_and_one_on_which_a_process_died(self, shop: Shop) -> None:
        shop.charge("earlier")
        with waiting(shop) as first:
            first.kill()
            first.wait(DEADLINE)
        assert (shop.home / f"{JOURNAL_FILE}-wal").exists()
        with mounted(shop.home, "bind"):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(shop.home)], check=True)
            self.check(shop)

    @as_root
    @pytest.mark.parametrize(
        ("folder", "files"),
        [(0o500, 0o600), (0o700, 0o400), (0o500, 0o400)],
        ids=["the folder", "the files", "both"],
    )
    def test_a_home_that_its_user_may_not_write(self, shop: Shop, elsewhere: Path, folder: int, files: int) -> None:
        shop.charge("earlier")
        moved(shop, elsewhere)
        os.chown(shop.home, NOBODY, NOBODY)
        for file in shop.home.iterdir():
            os.chown(file, NOBODY, NOBODY)
            file.chmod(files)
        shop.home.chmod(folder)
        self.check(shop, user=NOBODY)
        shop.home.chmod(0o700)
        for file in shop.home.iterdir():
            file.chmod(0o600)
        assert shop.charge("order", user=NOBODY).code == 0
        assert shop.taken("order") == 1
