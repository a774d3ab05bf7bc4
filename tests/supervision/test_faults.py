"""The fault table: what goes wrong, and the cause and the log line that the deployment's page shows
for it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from deployments.models import Deployment, Engine, Instance, Model
from deployments.services.deployments import deployment_start, deployment_stop
from tests.deployments.gguf_corpus import smollm2
from tests.supervision.conftest import QUICK, Ticker, fake_plan

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(90),
]


def model_gone(deployment: Deployment, tmp_path: Path) -> None:
    Model.objects.update(path=str(tmp_path / "gone.gguf"))


def model_cut(deployment: Deployment, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2().read_bytes()[:60_000_000])
    Model.objects.update(path=str(cut))


def model_is_no_gguf(deployment: Deployment, tmp_path: Path) -> None:
    other = tmp_path / "notes.gguf"
    other.write_text("these are my notes, not a model")
    Model.objects.update(path=str(other))


def wrong_value(deployment: Deployment, tmp_path: Path) -> None:
    """A flag of the allow-list with a value that only the engine can refuse."""
    Deployment.objects.update(
        settings={"context": 512, "threads": 1, "kv_cache_k": "q8_0"}, extra_args=[]
    )
    services_flags(deployment, ["--override-kv", "llama.block_count=int:banana"])


def services_flags(deployment: Deployment, extra: list[str]) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(extra_args=extra)


def unknown_flag(deployment: Deployment, tmp_path: Path) -> None:
    services_flags(deployment, ["--no-such-flag"])


def binary_gone(deployment: Deployment, tmp_path: Path) -> None:
    Engine.objects.update(path=str(tmp_path / "llama-server"))


def binary_is_a_text(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_text("not a program")
    path.chmod(0o755)
    Engine.objects.update(path=str(path))


Break = Callable[[Deployment, Path], None]
# how it is broken → (code, what the page says)
TABLE: dict[Break, tuple[str, tuple[str, ...]]] = {
    model_gone: ("model_missing", ("gone.gguf", "Put it back")),
    model_cut: ("gguf_truncated", ("cut.gguf", "truncated", "copy the file again")),
    model_is_no_gguf: ("gguf_not_gguf", ("notes.gguf", "begins with")),
    unknown_flag: ("", ("--no-such-flag",)),
    binary_gone: ("engine_missing", ("llama-server is gone",)),
    binary_is_a_text: ("engine_missing", ("cannot be started", "Exec format error")),
}


def page_of(deployment: Deployment, client: Client) -> str:
    return (
        client.get(f"/deployments/{deployment.name}/")
        .content.decode()
        .replace("&#x27;", "'")
    )


@pytest.mark.parametrize("break_it", TABLE, ids=lambda f: f.__name__)
def test_the_page_says_what_is_wrong(
    break_it: Break,
    deployment: Deployment,
    ticker: Ticker,
    admin: Client,
    tmp_path: Path,
) -> None:
    code, parts = TABLE[break_it]
    break_it(deployment, tmp_path)
    deployment_start(deployment=deployment)

    def failed() -> bool:
        return Deployment.objects.get().state == "failed"

    ticker.until(failed)
    page = page_of(deployment, admin)
    for part in parts:
        assert part in page
    seen = {
        Deployment.objects.get().error_code,
        *Instance.objects.values_list("error_code", flat=True),
    }
    assert not code or code in seen
    assert 'data-state="failed"' in page


def test_what_broke_while_it_was_stopped_is_told_by_page_list_and_status(
    deployment: Deployment,
    ticker: Ticker,
    admin: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    deployment_stop(deployment=deployment)
    ticker.until_state("stopped")
    model_cut(deployment, tmp_path)
    deployment_start(deployment=deployment)
    ticker.until(lambda: Deployment.objects.get().state == "failed")
    call_command("status")
    listed = admin.get("/deployments/").content.decode()
    for told in (page_of(deployment, admin), listed, capsys.readouterr().out):
        assert "truncated" in told and "cut.gguf" in told and "failed" in told


# Stand-in engines: mode, how long it may take, code, what the page says.
STAND_INS = {
    "it exits at once, again and again": (
        "exit",
        "exited",
        ("exit code 3", "the weights do not like this machine"),
    ),
    "it listens and never gets ready": (
        "loading",
        "never_ready",
        ("did not get ready",),
    ),
    "it never even listens": ("silent", "never_ready", ("did not get ready",)),
}


@pytest.mark.parametrize("case", STAND_INS)
def test_an_engine_that_never_works_is_given_up_and_the_page_says_why(
    case: str, deployment: Deployment, ticker: Ticker, admin: Client
) -> None:
    mode, code, parts = STAND_INS[case]
    ticker.new_agent(plan=fake_plan(mode))
    deployment_start(deployment=deployment)
    ticker.until_state("failed")
    page = page_of(deployment, admin)
    for part in parts:
        assert part in page
    assert Instance.objects.get().error_code == code
    ticker.until(lambda: not Instance.objects.get().pid, 5)


def test_the_first_exit_is_shown_before_it_is_given_up(
    deployment: Deployment, ticker: Ticker, admin: Client
) -> None:
    ticker.new_agent(plan=fake_plan("exit"))
    deployment_start(deployment=deployment)
    ticker.until_state("crashed")
    assert "the weights do not like this machine" in page_of(deployment, admin)


def test_a_taken_port_is_passed_over(
    deployment: Deployment, ticker: Ticker, settings: object
) -> None:
    first, last = settings.OMNI_ENGINE_PORTS  # type: ignore[attr-defined]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        ticker.new_agent(plan=fake_plan("serve"))
        deployment_start(deployment=deployment)
        ticker.until_state("ready")
    assert first < (Instance.objects.get().port or 0) <= last


def test_no_free_port_is_said(
    deployment: Deployment, ticker: Ticker, settings: object, admin: Client
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings.OMNI_ENGINE_PORTS = (port, port)  # type: ignore[attr-defined]
        ticker.new_agent(plan=fake_plan("serve"))
        deployment_start(deployment=deployment)
        ticker.until_state("failed")
    assert "OMNI_ENGINE_PORTS" in page_of(deployment, admin)


def test_a_hung_engine_is_found_and_started_anew(
    deployment: Deployment, ticker: Ticker
) -> None:
    ticker.new_agent(plan=fake_plan("serve"))
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    first = Instance.objects.get().pid
    assert first
    os.kill(first, signal.SIGSTOP)
    ticker.until_state("unhealthy")
    ticker.until(
        lambda: (
            Instance.objects.get().state == "ready"
            and Instance.objects.get().pid != first
        ),
        20,
    )
    assert Instance.objects.get().restarts == 1


def test_a_deaf_engine_is_killed_in_the_end(
    deployment: Deployment, ticker: Ticker
) -> None:
    ticker.new_agent(plan=fake_plan("deaf"))
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    deployment_stop(deployment=deployment)
    assert ticker.until_state("stopped") < QUICK.kill_s + 3


def test_children_of_an_engine_end_with_it(
    deployment: Deployment, ticker: Ticker
) -> None:
    from deployments.instances.logs import since_start

    ticker.new_agent(plan=fake_plan("family"))
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    lines = since_start(Path(Instance.objects.get().log_path))
    child = next(int(line.split()[1]) for line in lines if line.startswith("child"))
    deployment_stop(deployment=deployment)
    ticker.until_state("stopped")

    def gone() -> bool:
        try:
            return (
                Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                == "Z"
            )
        except OSError:
            return True

    ticker.until(gone, 5)
