"""Engines that are configured by files or by their environment, and engines that do less than they
were told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings

from deployments.instances.connecting import own_key_path
from deployments.instances.model_files import file_bytes, file_stamp, serves_old_file
from deployments.models import Deployment, Instance
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.plan import KEY, PORT, InstancePlan, Plan, Verdict
from deployments.services.deployments import deployment_start, deployment_stop
from deployments.supervision import process
from deployments.supervision.instances import slow_load_s
from deployments.supervision.launch import check
from deployments.supervision.log_reading import cause_of_exit, notice
from omni.errors import OmniError
from tests.deployments.model_folders import write_folder
from tests.supervision.conftest import FAKE, Ticker, fake_plan

pytestmark = pytest.mark.django_db(transaction=True)
TELLS = """import os, runpy, sys
print(os.getcwd(), os.environ.get('MY_KEY'), flush=True)
runpy.run_path(sys.argv[1], run_name='__main__')"""


def test_files_lie_in_the_folder_it_starts_in_and_the_key_is_kept_nowhere(
    deployment: Deployment, ticker: Ticker
) -> None:
    argv = (sys.executable, "-c", TELLS, str(FAKE), "--port", PORT)
    files = {
        "config.yml": {"port": PORT, "name": "{port}"},
        "api_tokens.yml": {"api_key": KEY},
    }
    plan = Plan(
        "independent",
        Verdict.VIABLE,
        instances=(InstancePlan("model", argv, {"MY_KEY": KEY}, files=files),),
    )
    ticker.new_agent(lambda _: plan)
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    row = Instance.objects.get()
    key = own_key_path(row.pk).read_text()
    folder = process.files_folder(settings.OMNI_HOME.run, row.pk)
    assert (
        folder / "config.yml"
    ).read_text() == f"port: {row.port}\nname: '{{port}}'\n"
    assert (folder / "api_tokens.yml").read_text() == f"api_key: {key}\n"
    assert (
        folder.stat().st_mode & 0o077 == 0
        and (folder / "api_tokens.yml").stat().st_mode & 0o077 == 0
    )
    assert (
        f"{folder} [key]" in Path(row.log_path).read_text()
        and key not in Path(row.log_path).read_text()
    )
    assert key not in json.dumps([row.argv, row.env]) and row.env == {"MY_KEY": KEY}
    deployment_stop(deployment=deployment)
    ticker.until_state("stopped")
    assert not folder.exists() and not own_key_path(row.pk).exists()


def test_of_an_engine_that_is_configured_by_a_file_its_model_is_known(
    deployment: Deployment, ticker: Ticker, tmp_path: Path
) -> None:
    """Its command names no model."""
    folder = write_folder(tmp_path / "exl3")
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    launch = LaunchFacts(
        flavour="tabbyapi", model_path=str(folder), is_folder=True, alias="a"
    )
    argv = (sys.executable, str(FAKE), "--port", PORT)
    planned = InstancePlan(
        "model", argv, files={"config.yml": {"port": PORT}}, launch=launch
    )
    ticker.new_agent(
        lambda _: Plan("independent", Verdict.VIABLE, instances=(planned,))
    )
    deployment_start(deployment=deployment)
    ticker.until_state("ready")

    row = Instance.objects.get()
    record = process.read_record(settings.OMNI_HOME.run, row.pk)
    assert record and record.launch == row.launch_facts == launch
    assert file_bytes(record.launch) == weights > 0
    assert row.file_stamp.startswith(f"{weights} ") and not serves_old_file(row)
    assert "does not tell its tokens" in row.warning

    (folder / "model.safetensors").touch()
    assert serves_old_file(row)


def test_a_fall_back_to_layer_split_is_told_of_an_engine_that_serves(
    deployment: Deployment, ticker: Ticker
) -> None:
    ticker.new_agent(fake_plan("graph"))
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    for _ in range(3):
        ticker.agent.tick()
    row = Instance.objects.get()
    assert (row.state, row.error) == ("ready", "")
    assert "no graph split for this model" in row.warning


def test_a_folder_that_is_gone_is_said_before_the_start(tmp_path: Path) -> None:
    launch = LaunchFacts(model_path=str(tmp_path / "gone"), is_folder=True)
    gone = InstancePlan("model", (sys.executable, "--port", PORT), launch=launch)
    with pytest.raises(OmniError, match="no such folder"):
        check(gone)
    there = write_folder(tmp_path / "there")
    here = replace(gone, launch=replace(launch, model_path=str(there)))
    check(here)
    check(replace(here, launch=replace(here.launch, draft_path=str(there))))
    with pytest.raises(OmniError, match="no such folder"):
        check(replace(here, launch=replace(here.launch, draft_path=launch.model_path)))
    (there / "config.json").unlink()
    with pytest.raises(OmniError, match="config.json: it is missing"):
        check(here)


def test_an_engine_that_compiles_may_take_long_and_longer_for_a_large_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "model-2.safetensors").write_bytes(b"x" * 500)
    (tmp_path / "notes.txt").write_bytes(b"x" * 9)
    launch = LaunchFacts(flavour="vllm", model_path=str(tmp_path), is_folder=True)
    assert file_bytes(launch) == 1500
    assert file_bytes(replace(launch, draft_path=str(tmp_path))) == 3000
    assert file_stamp(launch).startswith("1500 ")
    assert slow_load_s(launch) > 60
    assert slow_load_s(replace(launch, flavour="llama.cpp")) == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (
            "Split mode 'graph' is not supported for this model",
            "fell_back_to_layer_split",
        ),
        (
            "Split mode 'graph' is not supported for this Gemma4 variant",
            "fell_back_to_layer_split",
        ),
        (
            "Split mode 'graph' requested for Gemma4-assistant model",
            "fell_back_to_layer_split",
        ),
        ("CUDA3 backend not available.", "device_not_used"),
        ("0.00.1 E Failed to connect to 127.0.0.1:59999", "device_not_used"),
        ("none backend not available.", None),
        ("llama_model_load: all is well", None),
    ],
)
def test_lines_that_tell_of_less_than_was_planned(line: str, code: str | None) -> None:
    found = notice(["first", line, "last"])
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (
            "what():  It is not possible to use split mode 'graph' with less than 2 devices",
            "needs_two_devices",
        ),
        ("error: unknown argument: --draft-max-x", "flag_unknown"),
        ("error: invalid parameter for argument: -sm", "flag_value"),
        (
            "ValueError: invalid literal for int() with base 10: 'GPU-52a3a85d'",
            "device_unknown",
        ),
        (
            (
                "ValueError: Free memory on device cuda:0 (1/31 GiB) on startup is less than"
                " desired GPU memory utilization"
            ),
            "out_of_memory",
        ),
        (
            (
                "ValueError: Available memory on node 0 (7.46/9.09 GiB) on startup is less than"
                " desired CPU memory"
            ),
            "out_of_memory",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate",
            "out_of_memory",
        ),
        (
            "0.00.1 E ggml_aligned_malloc: insufficient memory (attempted to allocate  41.96 MB)",
            "out_of_memory",
        ),
        (
            "0.00.1 E llama_model_load: error loading model: mmap failed: Cannot allocate memory",
            "out_of_memory",
        ),
        ("  what():  std::bad_alloc", "out_of_memory"),
        ("E cannot start /opt/llama-server: Cannot allocate memory", "no_process"),
        (
            "E cannot start /opt/llama-server: Resource temporarily unavailable",
            "no_process",
        ),
        ("E cannot start /opt/llama-server: Text file busy", "no_process"),
        ("E cannot start /opt/llama-server: Exec format error", "engine_missing"),
        ("Port 18000 is currently in use. Switching to 18001.", "port_taken"),
    ],
)
def test_why_other_engines_end(line: str, code: str) -> None:
    assert cause_of_exit(["start", line], 1).code == code
