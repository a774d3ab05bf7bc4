"""What only one process needs to know is not in the environment of any other."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from django.core.management import CommandError

from omni.management.commands.prepare import refuse_weak_password
from tests.panel import PASSWORD, RunningPanel, arguments, start_that_ends

SECRETS = {
    "HF_TOKEN": "hf_a_token_that_is_secret",
    "OMNI_SECRET_KEY": "a-key-that-signs-sessions-" * 3,
    "LLAMA_API_KEY": "somebody's own",
    "AWS_SECRET_ACCESS_KEY": "somebody else's",
}


class PanelWithSecrets(RunningPanel):
    @property
    def env(self) -> dict[str, str]:
        return {**super().env, **SECRETS}


def environment(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def test_the_first_password_stays_with_the_parent_and_runners_know_nothing(
    tmp_path: Path,
) -> None:
    panel = PanelWithSecrets(tmp_path / "home")
    try:
        panel.start()
        panel.document("scan")
        rig = tmp_path / "rig.yaml"
        models = panel.document("scan")["models"]
        rig.write_text(
            f"deployments: [{{name: smol, models: {{model: {models[0]['name']}}}, devices: {{model:"
            " [CPU]}}]"
        )
        applied = panel.manage("apply", str(rig))
        assert applied.returncode == 0, applied.stderr
        panel.ready("smol")

        assert panel.process
        others = [
            found for found in panel.processes() if found.pid != panel.process.pid
        ]
        assert len(others) >= 4
        assert not [
            arguments(found) for found in others if PASSWORD in environment(found)
        ]

        running = {found.pid for found in panel.engines()}
        engines = [
            found
            for found in others
            if found.pid in running or "runner.py" in str(arguments(found))
        ]
        assert len(engines) >= 2
        for found in engines:
            assert not [
                name for name, value in SECRETS.items() if value in environment(found)
            ]
            assert "OMNI_" not in environment(found).replace("OMNI_INSTANCE", ""), (
                environment(found)
            )
    finally:
        panel.stop()


@pytest.mark.parametrize("password", ["a", "admin", "password123", "1234567890"])
def test_a_weak_first_password_is_no_password(password: str) -> None:
    with pytest.raises(CommandError, match="OMNI_ADMIN_PASSWORD cannot be"):
        refuse_weak_password(password)


def test_a_weak_first_password_is_told_at_the_start(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    done = start_that_ends({"OMNI_HOME": home, "OMNI_ADMIN_PASSWORD": "a"})
    assert done.returncode == 1 and "This password is too short" in done.stderr
    assert "Traceback" not in done.stderr
