"""`make test` runs what failed once more: only what fails twice fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import run

SUITE = '''
"""Each test has a file that counts how often it ran."""
import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ["OMNI_TEST_COUNTS"])


def times(name):
    file = FOLDER / name
    file.write_text(file.read_text() + "." if file.exists() else ".")
    return len(file.read_text())


@pytest.fixture
def broken_once():
    if times("setup") == 1:
        raise RuntimeError("the first set-up fails")


def test_passes():
    times("passes")


@pytest.mark.parametrize("text", ["a b", "[é]"])
def test_fails_once(text):
    assert times("once" + text) > 1, "an unlucky moment"


def test_fails_once_at_set_up(broken_once):
    pass
'''
ALWAYS = """
def test_always_fails():
    assert times("always") > 2
"""
DIES = """
def test_ends_the_process():
    os._exit(1)
"""


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    folder = tmp_path / "counts"
    folder.mkdir()
    return folder


def run_suite(
    text: str, counts: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    suite = counts.parent / "test_suite.py"
    suite.write_text(text)
    script = (
        "import sys; from pathlib import Path; from tests import run;"
        f"run.ROOT = Path({str(counts.parent)!r}); run.FLAKY = run.ROOT / 'flaky.txt';"
        "run.FAILED = run.ROOT / 'failed.txt';"
        "sys.exit(run.main(sys.argv[1:]))"
    )
    # Nothing of this project's own set-up: a suite of its own, in a folder of its own, without the
    # plug-ins that are installed here.
    options = ["-c", os.devnull, "--rootdir", str(suite.parent)]
    return subprocess.run(
        [sys.executable, "-c", script, str(suite), *arguments],
        cwd=counts.parent,
        env=os.environ
        | {
            "OMNI_TEST_COUNTS": str(counts),
            "PYTEST_ADDOPTS": " ".join(options),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "xdist.plugin",
            "PYTHONPATH": str(run.ROOT),
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_fails_once_is_flaky_and_the_run_passes(
    counts: Path, processes: str
) -> None:
    done = run_suite(SUITE, counts, "-n", processes)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("FLAKY: ") == 3
    assert "test_fails_once[a b]" in done.stdout
    assert "an unlucky moment" in (counts.parent / "flaky.txt").read_text()
    assert "an unlucky moment" in (counts.parent / "failed.txt").read_text()


def test_what_passed_is_not_run_again(counts: Path) -> None:
    run_suite(SUITE, counts)

    assert (counts / "passes").read_text() == "."


def test_what_fails_twice_fails_the_run_and_is_not_called_flaky(counts: Path) -> None:
    done = run_suite(SUITE + ALWAYS, counts)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert (counts / "always").read_text() == ".."
    assert "FLAKY: test_suite.py::test_always_fails" not in done.stdout


def test_a_run_that_breaks_off_fails(counts: Path) -> None:
    done = run_suite(SUITE + DIES, counts)

    assert done.returncode != 0


def test_a_process_that_dies_each_time_fails_the_run(counts: Path) -> None:
    done = run_suite(SUITE + DIES, counts, "-n", "2")

    assert done.returncode != 0
    assert "FLAKY: test_suite.py::test_ends_the_process" not in done.stdout


def test_a_file_that_cannot_be_read_is_not_run_again(counts: Path) -> None:
    done = run_suite("import nothing_of_this_name", counts)

    assert done.returncode not in (0, pytest.ExitCode.TESTS_FAILED)
    assert "again" not in done.stdout


def test_more_failures_than_bad_luck_are_not_run_again(counts: Path) -> None:
    many = (
        f"@pytest.mark.parametrize('n', range({run.MOST + 1}))\ndef test_many(n):\n    assert n"
        " < 0\n"
    )
    done = run_suite(SUITE + many, counts)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "too many for bad luck" in done.stdout


def test_a_run_that_hangs_is_stopped(
    counts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_TEST_MOST_S", "5")
    hangs = "import time\ndef test_hangs():\n    while True:\n        time.sleep(1)\n"
    done = run_suite(hangs, counts)

    assert done.returncode != 0
    assert "did not end within 5 s" in done.stdout
