"""Files that go away or change under a running engine: its record, its model, its program, its
row."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from signal import SIGKILL

from deployments.engines.probe.portable_cpu import library_env
from deployments.models import Deployment, Engine, Instance, Model
from tests.faults.rig import Rig
from tests.faults.rows_signals import Strike
from tests.faults.table import AGAIN, UNTOUCHED, Ends, Row

HELD = Ends(
    is_same=True
)  # the row may have been in doubt for a tick, the process never
GONE = Ends("gone")


# --- records --------------------------------------------------------------------------------------
def record_becomes(text: str | None) -> Strike:
    def strike(rig: Rig) -> None:
        path = rig.record_path()
        path.unlink() if text is None else path.write_text(text)
        rig.tick()
        rig.until(lambda: is_whole(path), 10)

    return strike


def is_whole(record: Path) -> bool:
    """Its runner has written it again."""
    try:
        return bool(json.loads(record.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def record_is_lost_and_stop_pressed(rig: Rig) -> None:
    rig.record_path().unlink()
    rig.stop()
    rig.tick()
    assert rig.state != "stopped" or not rig.processes(), (
        "it was said to be stopped while it ran"
    )


def record_is_lost_and_start_pressed_again(rig: Rig) -> None:
    """A stop and a start that see no record: there must not be two."""
    rig.record_path().unlink()
    rig.stop()
    rig.tick()
    rig.start()
    rig.until(lambda: is_whole(rig.record_path()), 10)


def leftovers(rig: Rig) -> None:
    """What a machine that lost its power may have left there."""
    rig.start()
    rig.until(lambda: rig.state == "ready", 20)
    path = rig.record_path()
    rig.stop()
    rig.until(lambda: rig.state == "stopped", 20)
    for suffix, text in (
        (".json", '{"instance": 1, "ar'),
        (".json.new", "{"),
        (".spec", "[]"),
        (".lock", ""),
    ):
        path.with_suffix(suffix).write_text(text)
    path.with_name("999999.json").write_text("null")
    rig.undo.callback(lambda: path.with_name("999999.json").unlink(missing_ok=True))
    rig.start()


# --- rows -----------------------------------------------------------------------------------------
def deployment_is_deleted_from_the_database(rig: Rig) -> None:
    Deployment.objects.all().delete()
    rig.until(lambda: not rig.processes(), 10)


def instance_is_deleted_from_the_database(rig: Rig) -> None:
    Instance.objects.filter(deployment=rig.deployment).delete()


def log_is_deleted(rig: Rig) -> None:
    """What the engine says from now on stands in a new file."""
    path = Path(rig.instance.log_path)
    path.unlink()
    rig.ask()
    rig.until(lambda: path.exists() and bool(path.read_text().strip()), 20)


# --- model and program ----------------------------------------------------------------------------
def own_model(rig: Rig) -> Path:
    path = Path(Model.objects.get().path)
    if path.parent == rig.folder:
        return path
    mine = rig.folder / "mine.gguf"
    (
        os.link(path, mine)
        if path.stat().st_dev == rig.folder.stat().st_dev
        else shutil.copy(path, mine)
    )
    Model.objects.update(path=str(mine))
    return mine


def with_own_model(then: Strike) -> Strike:
    """The deployment runs from a copy; then something is done to that and the engine is killed."""

    def strike(rig: Rig) -> None:
        own_model(rig)
        rig.restart()
        then(rig)
        rig.signal(SIGKILL)

    return strike


def model_is_deleted(rig: Rig) -> None:
    own_model(rig).rename(rig.folder / "kept.gguf")


def model_is_replaced_by_a_broken_one(rig: Rig) -> None:
    model = own_model(rig)
    model.rename(rig.folder / "kept.gguf")
    model.write_bytes((rig.folder / "kept.gguf").read_bytes()[:1_000_000])


def model_is_back(rig: Rig) -> None:
    (rig.folder / "kept.gguf").replace(own_model(rig))


def own_program(rig: Rig) -> Path:
    return rig.folder / "llama-server"


def with_own_program(
    then: Strike, *, text: str = 'exec {engine} "$@"\n', running: bool = True
) -> Strike:
    """The engine is a script of the test's own, which runs the real one."""

    def strike(rig: Rig) -> None:
        real = Engine.objects.get().path
        needs = "".join(
            f"export {name}={value}\n" for name, value in library_env(real).items()
        )
        own_program(rig).write_text(f"#!/bin/sh\n{needs}{text.format(engine=real)}")
        own_program(rig).chmod(0o755)
        Engine.objects.update(path=str(own_program(rig)))
        if not running:
            then(rig)
            return rig.start()
        rig.restart()
        then(rig)
        if rig.instance.pid:
            rig.signal(SIGKILL)

    return strike


def program_is_removed(rig: Rig) -> None:
    own_program(rig).rename(rig.folder / "kept")


def program_is_replaced_by_a_broken_one(rig: Rig) -> None:
    program_is_removed(rig)
    own_program(rig).write_bytes(b"\x7fELF this is not a program")
    own_program(rig).chmod(0o755)


def program_may_not_be_executed(rig: Rig) -> None:
    program_is_removed(rig)
    shutil.copy(rig.folder / "kept", own_program(rig))
    own_program(rig).chmod(0o644)


def program_is_back(rig: Rig) -> None:
    (rig.folder / "kept").replace(own_program(rig))


def program_is_being_copied(rig: Rig) -> None:
    """The kernel executes no file that is open for writing."""
    program_is_removed(rig)
    shutil.copy2(rig.folder / "kept", own_program(rig))
    copying = own_program(rig).open("a")
    rig.signal(SIGKILL)
    rig.until(lambda: "no_process" in rig.pages, 20)
    copying.close()


def nothing(rig: Rig) -> None:
    pass


def memory_suffices_again(rig: Rig) -> None:
    own_program(rig).write_text(own_program(rig).read_text().replace("ulimit", "true"))


LIMITED = 'ulimit -v 300000\nexec {engine} "$@"\n'
MISSING = Ends("failed", code="engine_missing", says=("llama-server",))
ROWS = (
    Row("record", "deleted", "ready", record_becomes(None), HELD, ("serve",)),
    Row("record", "empty", "ready", record_becomes(""), HELD, ("serve",)),
    Row("record", "cut off", "ready", record_becomes('{"instance": 1, "gen'), HELD, ("serve",)),
    Row("record", "of another shape", "ready", record_becomes(json.dumps([1, 2])), HELD, ("serve",)),
    Row("record", "without what it must have", "ready", record_becomes('{"argv": []}'), HELD, ("serve",)),
    Row("record", "deleted", "loading", record_becomes(None), HELD, ("slow",)),
    Row("record", "deleted and a stop", "ready", record_is_lost_and_stop_pressed, Ends("stopped"), ("serve",)),
    Row("record", "deleted, a stop and a start", "ready", record_is_lost_and_start_pressed_again, Ends(), ("serve",)),
    Row("record", "half-written ones are left over", "stopped", leftovers, Ends(restarts=0), ("serve",)),
    Row("row", "deployment deleted in the database", "ready", deployment_is_deleted_from_the_database, GONE, ("serve",)),
    Row("row", "deployment deleted in the database", "loading", deployment_is_deleted_from_the_database, GONE, ("slow",)),
    Row("row", "deployment deleted in the database", "generating", deployment_is_deleted_from_the_database, GONE, on="pair"),
    Row("row", "instance deleted in the database", "ready", instance_is_deleted_from_the_database, AGAIN, ("serve",)),
    Row("log", "deleted", "ready", log_is_deleted, UNTOUCHED),
    Row("model", "deleted, then SIGKILL of the engine", "stopped", with_own_model(model_is_deleted),
        Ends("failed", code="model_missing", says=("mine.gguf", "Put it back")), mend=model_is_back),
    Row("model", "cut off, then SIGKILL of the engine", "stopped", with_own_model(model_is_replaced_by_a_broken_one),
        Ends("failed", code="gguf_truncated", says=("mine.gguf", "copy the file again")), mend=model_is_back),
    Row("program", "removed, then SIGKILL of the engine", "stopped", with_own_program(program_is_removed), MISSING,
        mend=program_is_back),
    Row("program", "replaced by a broken one, then SIGKILL of the engine", "stopped",
        with_own_program(program_is_replaced_by_a_broken_one), MISSING, mend=program_is_back),
    Row("program", "may not be executed", "stopped", with_own_program(program_may_not_be_executed, running=False), MISSING,
        mend=program_is_back),
    Row("program", "is being copied, then SIGKILL of the engine", "stopped", with_own_program(program_is_being_copied),
        Ends(), within_s=40),
    Row("memory", "less than the engine needs", "stopped", with_own_program(nothing, text=LIMITED, running=False),
        Ends("failed", code="out_of_memory", says=("Main memory does not suffice", "mmap failed")),
        mend=memory_suffices_again),
)  # fmt: skip
