"""The doctor's page and command: costs of deployments, what is known, who may hide, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from deployments.services.discovery import local_host
from deployments.services.findings import (
    Judged,
    finding_hide,
    judged_lately,
    judged_now,
)
from gpus.findings import Finding
from gpus.models import Host, KnownFinding
from omni.errors import OmniError
from tests.panel import ROOT


@pytest.fixture
def host(db: None) -> Host:
    """Its agent has said that it cannot do something: a finding on any machine."""
    found = local_host()
    found.problems = {"library": "the folder cannot be read"}
    found.nvml_state = "ok"
    found.save()
    return found


def shown(client: Client) -> str:
    return client.get("/doctor/").content.decode()


TITLE = "The agent cannot look after the library"


def test_an_administrator_hides_a_finding_until_it_changes(
    admin: Client, viewer: Client, host: Host
) -> None:
    assert TITLE in shown(viewer) and "Known, hide" not in shown(viewer)
    [finding] = [
        each.finding
        for each in judged_lately(host)
        if each.finding.code == "agent_library"
    ]
    form = {
        "code": finding.code,
        "subject": finding.subject,
        "fingerprint": finding.fingerprint,
    }
    assert "Known, hide until it changes" in shown(admin)
    assert admin.post("/doctor/known/", form).status_code == 302
    assert "Known, hidden until they change (1)" in shown(viewer)
    assert TITLE not in viewer.get("/rig/").content.decode()

    host.problems = {"library": "the folder is gone"}
    host.save()
    assert "hidden until they change" not in shown(viewer)
    assert TITLE in viewer.get("/rig/").content.decode()

    admin.post("/doctor/known/", {**form, "again": "1"})
    assert not KnownFinding.objects.exists()


def test_nobody_else_hides_findings(
    viewer: Client, operator: Client, host: Host
) -> None:
    for client in (viewer, operator):
        assert client.post("/doctor/known/", {"code": "x"}).status_code == 403
    assert not KnownFinding.objects.exists()


def hide_all(host: Host, judged: list[Judged]) -> None:
    for each in judged:
        finding_hide(
            host=host,
            code=each.finding.code,
            subject=each.finding.subject,
            fingerprint=each.finding.fingerprint,
            user=None,
        )


def test_where_nothing_is_found_it_is_said_what_was_looked_at(
    viewer: Client, host: Host
) -> None:
    hide_all(host, judged_lately(host))
    page = shown(viewer)
    assert "Nothing is wrong" in page and "link under load" in page


# --- command --------------------------------------------------------------------------------------
def doctor(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The real command, in a home of its own."""
    home = tmp_path / "home"
    return subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json"],
        cwd=ROOT,
        env={**os.environ, "OMNI_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_doctor_that_cannot_look_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.strip().splitlines()) == 1 and "database" in done.stderr


def test_findings_end_with_1_and_none_that_is_new_with_0(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", "--json")
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {"code", "severity", "title", "text", "fix", "costs"} <= set(found[0])
    hide_all(host, judged_now(host))
    call_command("doctor", "--json")
    assert json.loads(capsys.readouterr().out) == {"findings": []}
    call_command("doctor")
    assert "known, not shown" in capsys.readouterr().out


def test_hints_alone_end_with_0_and_are_told(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hint = Judged(
        Finding("persistence_off", "info", "It is off", "It is so.", "Do it.")
    )
    monkeypatch.setattr(
        "deployments.management.commands.doctor.judged_now", lambda host: [hint]
    )
    call_command("doctor")
    said = capsys.readouterr().out
    assert "It is off" in said and "Nothing is wrong" in said


def test_whatever_keeps_it_from_looking_is_a_2(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(host: Host) -> None:
        raise OmniError("x", "It cannot.", "Do it.")

    monkeypatch.setattr("deployments.management.commands.doctor.judged_now", fails)
    with pytest.raises(CommandError, match="It cannot") as error:
        call_command("doctor")
    assert error.value.returncode == 2
