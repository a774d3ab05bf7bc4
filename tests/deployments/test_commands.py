"""The commands as scripts use them: exit codes, one line on stderr, one JSON document on stdout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from deployments.models import ApiKey, Deployment, Instance, Model
from deployments.rig.reader import parse
from deployments.services.deployments import deployment_start
from gpus.models import Host
from tests import postgres
from tests.deployments.gguf_corpus import write_with_package
from tests.panel import ROOT


def said(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


def document(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


# --- scan, plan, apply, export --------------------------------------------------------------------
def test_scan_names_every_model_and_what_is_broken(
    db: None, models_folder: Path
) -> None:
    write_with_package(models_folder / "good.gguf")
    (models_folder / "bad.gguf").write_bytes(b"not a model")
    bad, good = document("scan", str(models_folder))["models"]
    assert set(good) == {
        "name",
        "path",
        "arch",
        "params",
        "quant",
        "size_bytes",
        "n_layer",
        "n_ctx_train",
    }
    assert (good["name"], good["path"]) == ("good", str(models_folder / "good.gguf"))
    assert bad["name"] == "bad" and "bad.gguf" in bad["error"]
    assert "2 models." in said("scan", str(models_folder))


def test_plan_of_a_deployment_has_the_documented_keys(deployment: Deployment) -> None:
    (plan,) = document("plan", "small")["deployments"]
    assert set(plan) == {
        "name",
        "strategy",
        "verdict",
        "reasons",
        "devices",
        "instances",
        "predicted",
    }
    assert (plan["name"], plan["strategy"], plan["verdict"]) == (
        "small",
        "independent",
        "viable",
    )
    (device,) = plan["devices"]
    assert set(device) == {
        "name",
        "total_bytes",
        "weights_bytes",
        "kv_bytes",
        "compute_bytes",
        "other_bytes",
    }
    assert device["kv_bytes"] > 0
    (instance,) = plan["instances"]
    assert instance["role"] == "model" and "-ngl" in instance["argv"]
    predicted = plan["predicted"]
    assert predicted["prefill_tps"] == predicted["computed_prefill_tps"]
    assert predicted["decode_tps"] == predicted["computed_decode_tps"]
    assert (predicted["basis"], predicted["decode_corrected_by"]) == ("computed", None)
    assert "small: independent, viable" in said("plan", "small")


def test_plan_of_a_file_changes_nothing(
    engine: object, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text(
        f"deployments:\n  - {{name: a, models: {model.name}, devices: CPU, settings: {{context:"
        " 16384}}\n"
    )
    (plan,) = document("plan", str(file))["deployments"]
    assert (plan["verdict"], [r["code"] for r in plan["reasons"]]) == (
        "caution",
        # The memory of the tests' machine is not measured.
        ["context_beyond_training", "speed_unknown"],
    )
    assert set(plan["reasons"][0]) == {"code", "severity", "text"}
    assert not Deployment.objects.exists()


def test_apply_says_what_it_changed_and_export_gives_it_back(
    engine: object, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text(
        f"deployments:\n  - {{name: a, models: {model.name}, devices: CPU}}\n"
    )
    assert (
        said("apply", str(file), "--start")
        == "deployment a added\ndeployment a started\n"
    )
    assert said("apply", str(file)) == "Nothing to change.\n"
    (exported,) = parse(said("export")).deployments
    assert (exported.name, exported.devices) == ("a", {"model": ("CPU",)})
    assert document("export")["deployments"][0]["name"] == "a"


def test_apply_refuses_a_file_with_the_line(engine: object, tmp_path: Path) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text("deployments:\n  - name: a\n    models: nope\n    devices: CPU\n")
    with pytest.raises(CommandError, match="^line 3: There is no model 'nope'"):
        call_command("apply", str(file))
    with pytest.raises(CommandError, match="nope.yaml cannot be read: No such file"):
        call_command("apply", str(tmp_path / "nope.yaml"))


# --- start, stop, status --------------------------------------------------------------------------
class AgentStandsIn:
    """Does to the rows what an agent does, so that waiting can be tested without processes."""

    def __init__(self, state: str, error: str = "") -> None:
        self.state, self.error = state, error
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.stopping.wait(0.05):
            Host.objects.update(agent_seen_at=timezone.now())
            for row in Deployment.objects.all():
                state = self.state if row.desired == "running" else "stopped"
                values = {
                    "state": state,
                    "error": self.error,
                    "generation": row.generation,
                    "host": row.host,
                }
                Instance.objects.update_or_create(
                    deployment=row, role="model", defaults=values
                )
        connection.close()

    def __enter__(self) -> None:
        Host.objects.update(agent_seen_at=timezone.now())
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()


@pytest.mark.django_db(transaction=True)
def test_start_and_stop_wait_until_it_is_so(deployment: Deployment) -> None:
    with AgentStandsIn("ready"):
        assert said("start", "small", "--wait", "10") == "small runs.\n"
        assert said("stop", "small", "--wait", "10") == "small is stopped.\n"


@pytest.mark.django_db(transaction=True)
def test_a_start_that_fails_says_why_at_once(deployment: Deployment) -> None:
    told = pytest.raises(
        CommandError, match="could not be started: The model file is gone"
    )
    with AgentStandsIn("failed", "The model file is gone."), told:
        call_command("start", "small", "--wait", "30")


@pytest.mark.django_db(transaction=True)
def test_a_start_after_a_failure_waits_for_the_new_attempt(
    deployment: Deployment,
) -> None:
    deployment_start(deployment=deployment)
    row = Deployment.objects.get()
    failed = {
        "state": "failed",
        "error": "The model file is gone.",
        "generation": row.generation,
    }
    Instance.objects.create(host=row.host, deployment=row, role="model", **failed)
    assert Deployment.objects.get().state == "failed"
    deployment_start(deployment=deployment)
    assert Deployment.objects.get().state == "starting", (
        "of the new attempt nothing is known yet"
    )
    with AgentStandsIn("ready"):
        assert said("start", "small", "--wait", "30") == "small runs.\n"


@pytest.mark.django_db(transaction=True)
def test_waiting_ends_when_its_time_is_over(deployment: Deployment) -> None:
    with (
        AgentStandsIn("loading"),
        pytest.raises(CommandError, match="small is loading after 0.3 s, not ready"),
    ):
        call_command("start", "small", "--wait", "0.3")


def test_without_an_agent_waiting_says_so_and_the_wish_is_kept(
    deployment: Deployment,
) -> None:
    with pytest.raises(CommandError, match="No agent runs on testhost"):
        call_command("start", "small", "--wait", "30")
    assert Deployment.objects.get().desired == "running"


def test_without_wait_the_wish_is_enough(deployment: Deployment) -> None:
    assert said("start", "small") == "small is wanted running.\n"
    assert said("stop", "small") == "small is wanted stopped.\n"


def test_an_unknown_name_is_answered_with_the_known_ones(
    deployment: Deployment,
) -> None:
    for command in ("start", "stop", "plan"):
        with pytest.raises(
            CommandError, match="no deployment 'smal'. There are: small"
        ):
            call_command(command, "smal")


def test_status_has_the_documented_keys(deployment: Deployment) -> None:
    Instance.objects.create(
        host=deployment.host,
        deployment=deployment,
        role="model",
        state="ready",
        pid=7,
        port=9,
    )
    found = document("status")
    assert set(found) == {"hosts", "gpus", "devices", "deployments"}
    assert [d["name"] for d in found["devices"]] == ["RPC0", "RPC1", "CPU"]
    (row,) = found["deployments"]
    assert {"name", "strategy", "desired", "state", "instances"} <= set(row)
    assert row["instances"] == [
        {
            "role": "model",
            "pid": 7,
            "port": 9,
            "state": "ready",
            "restarts": 0,
            "error": "",
            "address": "127.0.0.1:9",
        }
    ]
    assert "deployment small: ready" in said("status")


# --- keys -----------------------------------------------------------------------------------------
def test_a_key_is_printed_once_and_only_its_hash_is_kept(db: None) -> None:
    key = said("apikey", "script").strip()
    (row,) = ApiKey.objects.all()
    assert ApiKey.objects.get_from_key(key) == row
    assert key not in str(vars(row))


@pytest.mark.parametrize("name", [" ", "x" * 51])
def test_a_key_needs_a_name(db: None, name: str) -> None:
    with pytest.raises(CommandError, match="1 to 50 characters"):
        call_command("apikey", name)


@pytest.mark.parametrize(
    "wrong",
    [("start",), ("start", "a", "--wait", "-1"), ("apikey",), ("plan",), ("apply",)],
)
def test_wrong_usage_is_told_before_anything_is_done(wrong: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command(*wrong)


# --- as a process ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def manage(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """manage.py in a process of its own, with an empty OMNI_HOME."""
    env = {
        **os.environ,
        "OMNI_HOME": str(tmp_path_factory.mktemp("home")),
        "OMNI_HOST_NAME": "testhost",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    assert run("migrate", "--verbosity", "0").returncode == 0
    yield run


def test_json_is_all_there_is_on_stdout(
    manage: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    for command in ("scan", "status"):
        done = manage(command, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_exit_codes_tell_refusal_from_wrong_usage(
    manage: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused = manage("start", "nope")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "no deployment 'nope'" in refused.stderr
    assert manage("start", "a", "--wait", "soon").returncode == 2


def test_a_database_that_was_never_made_is_said_so(tmp_path: Path) -> None:
    env = {
        **os.environ,
        **postgres.own_database("never_made"),
        "OMNI_HOME": str(tmp_path / "empty"),
    }
    argv = [sys.executable, str(ROOT / "manage.py"), "status"]
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert (
        "Start the panel once" in done.stderr
        and len(done.stderr.strip().splitlines()) == 1
    )
