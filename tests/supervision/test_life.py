"""Start, stop, crash and take-over with the real engine: one process when wanted, none when not."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from django.conf import settings as django_settings
from django.db import close_old_connections
from django.test import Client

from deployments.instances.drain import RequestLocks
from deployments.models import Deployment, Instance, Transition
from deployments.services.deployments import (
    deployment_change,
    deployment_delete,
    deployment_start,
    deployment_stop,
)
from deployments.supervision import process
from deployments.supervision.stop import stop_everything
from tests.helpers import lives
from tests.supervision.conftest import Ticker, fake_plan

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


def engines() -> list[psutil.Process]:
    """Engines of this test's OMNI_HOME in the process table."""
    sockets = f"{django_settings.OMNI_HOME.sockets}/"
    found = []
    for candidate in psutil.process_iter(["cmdline", "status"]):
        arguments = candidate.info["cmdline"] or []
        if candidate.info["status"] != psutil.STATUS_ZOMBIE and any(
            word.startswith(sockets) for word in arguments
        ):
            found.append(candidate)
    return found


def test_start_and_stop_leave_one_process_and_then_none(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    row = Instance.objects.get()
    (engine,) = engines()
    assert (engine.pid, row.state, row.restarts) == (row.pid, "ready", 0)
    assert engine.cmdline() == row.argv
    assert os.getsid(engine.pid) != os.getsid(0)
    socket = Path(row.socket)
    assert socket.is_socket()
    deployment_stop(deployment=deployment)
    ticker.until_state("stopped")
    assert engines() == []
    row.refresh_from_db()
    assert (row.pid, row.socket) == (None, "")
    assert not socket.exists()
    steps = list(Transition.objects.order_by("id").values_list("old", "new"))
    assert steps[0] == ("stopped", "starting") and steps[-1] == ("stopping", "stopped")
    assert ("loading", "ready") in steps or ("starting", "ready") in steps


def test_a_new_agent_takes_over_what_runs(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    before = Instance.objects.get().pid
    for _ in range(5):
        ticker.new_agent()
        ticker.agent.tick()
        row = Instance.objects.get()
        assert (row.pid, row.state, row.restarts) == (before, "ready", 0)
    assert [engine.pid for engine in engines()] == [before]


def test_a_killed_engine_is_started_again_and_counted(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    first = Instance.objects.get().pid
    assert first
    os.kill(first, signal.SIGKILL)
    ticker.until_state("crashed")
    assert "SIGKILL" in Instance.objects.get().error
    ticker.until_state("ready")
    row = Instance.objects.get()
    assert row.pid != first and row.restarts == 1 and row.error == ""


@pytest.mark.parametrize(("at_work", "state"), [(True, "ready"), (False, "failed")])
def test_crashes_at_work_on_requests_do_not_take_a_deployment_away_for_good(
    deployment: Deployment, ticker: Ticker, at_work: bool, state: str
) -> None:
    """Of its own crashes three in a row are enough."""
    deployment_start(deployment=deployment)
    steps = ticker.agent.steps
    steps.limits = replace(steps.limits, load_base_s=60.0)
    request_locks = RequestLocks(django_settings.OMNI_HOME.drain_locks)
    for _ in range(3):
        ticker.until_state("ready")
        with request_locks.held(deployment.pk) if at_work else nullcontext():
            pid = Instance.objects.get().pid
            assert pid
            os.kill(pid, signal.SIGSEGV)
            ticker.until(lambda: Instance.objects.get().state in ("crashed", "failed"))
    ticker.until_state(state)


def test_the_exit_code_of_an_engine_that_ended_while_no_agent_looked(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    pid = Instance.objects.get().pid
    assert pid
    os.kill(pid, signal.SIGSEGV)
    record = process.read_record(
        django_settings.OMNI_HOME.run, Instance.objects.get().pk
    )
    assert record
    assert process.wait_ended(record, 5)
    ticker.new_agent()
    ticker.until_state("crashed")
    assert Instance.objects.get().exit_code == -signal.SIGSEGV


def test_record_of_another_process_is_never_signalled(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    record = process.read_record(
        django_settings.OMNI_HOME.run, Instance.objects.get().pk
    )
    assert record and record.ticks
    sleeper = psutil.Popen(["sleep", "60"])
    try:
        for others_record in (
            replace(record, pid=sleeper.pid),
            replace(record, pid=sleeper.pid, boot_id="another boot"),
        ):
            assert not others_record.is_alive
            assert not process.send_signal(others_record, signal.SIGKILL)
        assert lives(sleeper)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_ten_concurrent_start_clicks_give_one_process(
    deployment: Deployment, ticker: Ticker, admin: Client
) -> None:
    cookies = admin.cookies
    answers: list[int] = []

    def click() -> None:
        client = Client()
        client.cookies = cookies
        answers.append(
            client.post(f"/deployments/{deployment.name}/start/").status_code
        )
        close_old_connections()

    clicks = [threading.Thread(target=click) for _ in range(10)]
    for each in clicks:
        each.start()
    while any(each.is_alive() for each in clicks):
        ticker.agent.tick()
        assert len(engines()) <= 1
    ticker.until_state("ready")
    assert len(answers) == 10 and set(answers) <= {200, 204, 302}
    assert len(engines()) == 1
    assert Instance.objects.get().restarts == 0


@pytest.mark.parametrize(("last", "presses"), [("running", 24), ("stopped", 12)])
def test_quick_start_and_stop_end_in_what_was_asked_last(
    last: str, presses: int, deployment: Deployment, ticker: Ticker
) -> None:
    chance = random.Random(last)
    running = False
    for _ in range(presses):
        running = not running
        act = deployment_start if running else deployment_stop
        act(deployment=deployment)
        for _ in range(chance.randint(0, 6)):
            ticker.agent.tick()
            time.sleep(0.05)
        assert len(engines()) <= 1
    act = deployment_start if last == "running" else deployment_stop
    act(deployment=deployment)
    ticker.until_state("ready" if last == "running" else "stopped")
    assert len(engines()) == (1 if last == "running" else 0)


def test_changed_settings_replace_the_process(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    first = Instance.objects.get().pid
    deployment_change(deployment=deployment, settings={"context": 1024, "threads": 1})
    ticker.until(
        lambda: (
            Instance.objects.get().state == "ready"
            and Instance.objects.get().pid != first
        )
    )
    argv = engines()[0].cmdline()
    assert argv[argv.index("-c") + 1] == "1024"
    assert len(engines()) == 1


def test_a_deleted_deployment_goes_when_its_process_is_gone(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    deployment_delete(deployment=deployment)
    ticker.until(lambda: not Deployment.objects.exists())
    assert engines() == []


def test_a_process_whose_row_was_removed_is_ended(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    Deployment.objects.all().delete()
    ticker.until(lambda: engines() == [], 5)


def test_stop_everything_keeps_what_is_desired(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    assert stop_everything("testhost", timeout_s=10) == 1
    assert engines() == []
    ticker.new_agent()
    ticker.until_state("ready")
    assert Deployment.objects.get().desired == "running"
    assert Instance.objects.get().restarts == 0


def test_a_flood_of_log_is_kept_within_its_bound(
    deployment: Deployment, ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 1 << 20)
    ticker.new_agent(plan=fake_plan("flood"))
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    path = Path(Instance.objects.get().log_path)
    files = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, 4))]
    ticker.until(lambda: all(file.exists() for file in files), 20)
    sizes: list[int] = []

    def settled() -> bool:
        """The flood is over: between two looks nothing was written or turned over."""
        before, sizes[:] = (
            list(sizes),
            [file.stat().st_size if file.exists() else -1 for file in files],
        )
        return sizes == before and min(sizes) > 0

    ticker.until(settled, 20)
    assert max(sizes) <= (1 << 20) + 65536
    assert not path.with_name(f"{path.name}.4").exists()
