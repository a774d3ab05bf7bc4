"""What goes wrong in the agent's own loops stands on the Rig page until it goes again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import Client

from deployments.models import Model
from deployments.supervision import agent, problems
from deployments.supervision.problems import record_problem, recording_problems
from gpus.models import Host
from tests.helpers import wait_until

TITLE = "Looking for devices, engines and models failed"


@pytest.fixture(autouse=True)
def as_after_a_start() -> Iterator[None]:
    problems._recorded.clear()
    yield
    problems._recorded.clear()


def kept(host: Host) -> dict[str, str]:
    return Host.objects.get(pk=host.pk).problems


def test_a_failure_is_written_down_once_and_goes_with_the_first_success(
    host: Host,
) -> None:
    for _ in range(2):
        with recording_problems("library"):
            raise OSError("the folder is gone")
        assert kept(host) == {"library": "OSError: the folder is gone"}
    with recording_problems("supervision"):
        pass
    assert list(kept(host)) == ["library"]
    with recording_problems("library"):
        pass
    assert kept(host) == {}


def test_what_an_agent_before_this_one_wrote_goes_too(host: Host) -> None:
    record_problem("supervision", "It was another process.")
    problems._recorded.clear()
    with recording_problems("supervision"):
        pass
    assert kept(host) == {}


def test_a_discovery_that_cannot_work_is_on_the_rig_page_and_tried_again(
    host: Host, viewer: Client
) -> None:
    # A folder where the lock file should be: nobody can open it.
    lock = settings.OMNI_HOME.run / "discovery.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    looking = threading.Thread(target=agent._discover, args=(0.1,))
    looking.start()
    try:
        wait_until(lambda: kept(host), 20, "nothing was written down")
        page = viewer.get("/rig/").content.decode()
        assert TITLE in page and "discovery.lock" in page and "tries again" in page
    finally:
        lock.rmdir()
    try:
        found = Model.objects.filter(state="ok")
        wait_until(
            lambda: found.exists() and kept(host) == {}, 60, "it was not tried again"
        )
    finally:
        # It goes on to keep the RAM's bandwidth measured, as long as the agent runs.
        agent._stopping.set()
        looking.join(30)
        agent._stopping.clear()
    assert TITLE not in viewer.get("/rig/").content.decode()
