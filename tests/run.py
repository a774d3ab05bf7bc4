"""Runs the tests, and what failed once more, alone: only what fails twice fails the run.

    python -m tests.run [arguments of pytest]

What failed stands in tests/artifacts/failed.txt at once. What passed the second time is printed as
`FLAKY: …` and kept in tests/artifacts/flaky.txt, with what the first failure said. It is a fault
all the same, to be mended; it only does not cost the whole run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAKY = ROOT / "tests" / "artifacts" / "flaky.txt"
# Written while the run goes on, so that nobody has to wait for its end to see what failed.
FAILED = FLAKY.with_name("failed.txt")
FAILURES_FILE, FAILED_FILE = "OMNI_TEST_FAILURES_FILE", "OMNI_TEST_FAILED_FILE"
# Three times what all tests take on two cores.
MOST_S = float(os.environ.get("OMNI_TEST_MOST_S", 3600))
# More failures than this are no bad luck, and a second run would only take long.
MOST = 60


class Failures:
    """A pytest plugin that writes which tests failed, and what each failure said, to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.reasons:
            self.reasons[report.nodeid] = report.longreprtext
            append(
                Path(os.environ[FAILED_FILE]),
                f"FAILED: {report.nodeid}\n{report.longreprtext}\n\n",
            )

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.reasons))


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get(FAILURES_FILE)
    is_worker = hasattr(config, "workerinput")
    if path and not is_worker:
        config.pluginmanager.register(Failures(Path(path)), "omni-failures")


def ended(tests: subprocess.Popen[bytes]) -> int:
    """The exit code, of a run that takes no end too: a test that hangs is not to hold up whoever
    waits for the run."""
    try:
        return tests.wait(MOST_S)
    except subprocess.TimeoutExpired:
        print(
            f"The tests did not end within {MOST_S:g} s and are stopped; see what hangs.",
            flush=True,
        )
        stop_all(tests.pid)
        return tests.wait()


def stop_all(pid: int) -> None:
    """Ends a process and everything it started."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def run(arguments: list[str]) -> tuple[int, dict[str, str] | None]:
    """pytest's exit code, and the failed tests with their reasons; None where it broke off."""
    with tempfile.TemporaryDirectory(prefix="omni-failures-") as folder:
        path = Path(folder) / "failures.json"
        env = os.environ | {FAILURES_FILE: str(path), FAILED_FILE: str(FAILED)}
        argv = [sys.executable, "-m", "pytest", "-p", "tests.run", *arguments]

        code = ended(subprocess.Popen(argv, env=env, cwd=ROOT))
        failures = json.loads(path.read_text()) if path.exists() else None
        return code, failures


def run_again(nodeids: list[str]) -> tuple[int, dict[str, str] | None]:
    """The same for these tests only, one after the other in one process."""
    with tempfile.NamedTemporaryFile("w", prefix="omni-again-", suffix=".txt") as file:
        file.write("\n".join(nodeids))
        file.flush()
        return run([f"@{file.name}"])


def append(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a", errors="replace") as file:
        file.write(text)


def report_flaky(reasons: dict[str, str]) -> None:
    for nodeid, reason in reasons.items():
        print(f"FLAKY: {nodeid}", flush=True)
        append(FLAKY, f"FLAKY: {nodeid}\n{reason}\n\n")


def main(arguments: list[str]) -> int:
    for path in (FLAKY, FAILED):
        path.unlink(missing_ok=True)
    code, failed = run(arguments)

    if code != pytest.ExitCode.TESTS_FAILED or not failed:
        return code
    if len(failed) > MOST:
        print(
            f"{len(failed)} tests failed: too many for bad luck; none is run again.",
            flush=True,
        )
        return code

    print(f"Running the {len(failed)} that failed again, alone:", flush=True)
    code, failed_twice = run_again(list(failed))

    did_run = code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if did_run and failed_twice is not None:
        report_flaky(
            {
                nodeid: why
                for nodeid, why in failed.items()
                if nodeid not in failed_twice
            }
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
