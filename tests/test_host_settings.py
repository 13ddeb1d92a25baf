import os
import subprocess
import sys
from pathlib import Path

import pytest

from pss_razor import host_settings
from pss_razor.host_settings import HostSettings, faster, read_host_settings

SHOW = "import os; print(*(f'{k}={v}' for k, v in sorted(os.environ.items()) if 'MALLOC' in k or 'ONEDNN' in k))"


def run(*command, **variables):
    environment = {k: v for k, v in os.environ.items() if "MALLOC" not in k and "ONEDNN" not in k}
    return subprocess.run(
        [sys.executable, "-m", "pss_razor.host_settings", *command],
        env={**environment, **variables}, capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip


@pytest.fixture
def no_tcmalloc(monkeypatch):
    monkeypatch.setattr(host_settings, "find_tcmalloc", lambda: None)


def test_a_command_gets_them():
    done = run(sys.executable, "-c", SHOW)
    assert done.returncode == 0, done.stderr
    assert "MALLOC_TRIM_THRESHOLD_=4294967296" in done.stdout
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY=8192" in done.stdout


def test_what_is_set_stays():
    assert "CAPACITY=7" in run(sys.executable, "-c", SHOW, ONEDNN_PRIMITIVE_CACHE_CAPACITY="7").stdout


def test_the_switch():
    assert run(sys.executable, "-c", SHOW, PSS_HOST_SETTINGS="0").stdout.strip() == ""


def test_the_exit_status_is_the_commands():
    assert run(sys.executable, "-c", "raise SystemExit(7)").returncode == 7


@pytest.mark.parametrize("command", [[], ["--help"], ["no-such-command"]])
def test_what_is_no_command(command):
    done = run(*command)
    assert done.returncode != 0 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_tcmalloc_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(host_settings, "find_tcmalloc", lambda: "/usr/lib/libtcmalloc_minimal.so.4")
    assert faster({})["LD_PRELOAD"] == "/usr/lib/libtcmalloc_minimal.so.4"
    assert faster({"LD_PRELOAD": "/lib/other.so"})["LD_PRELOAD"].split() == [
        "/usr/lib/libtcmalloc_minimal.so.4",
        "/lib/other.so",
    ]
    assert "LD_PRELOAD" not in faster({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"})


def test_without_tcmalloc(no_tcmalloc):
    assert "LD_PRELOAD" not in faster({})


def test_what_is_missing(no_tcmalloc):
    bare = HostSettings("glibc", None, 1, 2, "madvise")
    assert [word for word in ("glibc", "tcmalloc", "oneDNN", "start it by") if word in "; ".join(bare.missing())] == [
        "glibc", "tcmalloc", "oneDNN", "start it by"
    ]  # fmt: skip
    assert HostSettings("tcmalloc", 8192, 1, 2, "madvise").missing() == []


def test_of_this_process(monkeypatch):
    for key in host_settings.KEEP_FREED_MEMORY:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "12")
    settings = read_host_settings()
    assert settings.primitives == 12 and settings.cores == len(os.sched_getaffinity(0))
    assert str(settings.threads) in str(settings) and "allocator" in str(settings)


@pytest.mark.skipif(host_settings.find_tcmalloc() is None, reason="tcmalloc is not installed")
def test_a_real_tcmalloc():
    show = "from pss_razor.host_settings import read_host_settings; print(read_host_settings().allocator)"
    assert run(sys.executable, "-c", show).stdout.strip() == "tcmalloc"
