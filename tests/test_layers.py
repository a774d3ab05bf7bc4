"""Who may import what: the rules that keep decisions pure and edges few."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("omni", "gpus", "deployments", "chat")
SOURCES = sorted(p for app in APPS for p in (ROOT / app).rglob("*.py") if "migrations" not in p.parts)

# Modules that decide and do no I/O: the standard library without processes and sockets, and each other.
PURE = {
    "omni/addresses.py",
    "omni/env.py",
    "omni/errors.py",
    "omni/events.py",
    "omni/icons.py",
    "omni/units.py",
    "gpus/sample.py",
    "gpus/rollup.py",
    "gpus/links.py",
    "gpus/doctor.py",
    "deployments/gguf.py",
    "deployments/gguf_values.py",
    "deployments/gguf_window.py",
    "deployments/ggml_types.py",
    "deployments/safetensors.py",
    "deployments/model_folder.py",
    "deployments/folder_tensors.py",
    "deployments/folder_facts.py",
    "deployments/hub_files.py",
    "deployments/model_facts.py",
    "deployments/engine_address.py",
    "deployments/model_kinds.py",
    "deployments/model_partners.py",
    "deployments/model_words.py",
    "deployments/names.py",
    "deployments/rig.py",
    "deployments/rig_reader.py",
    "deployments/rig_lines.py",
    "deployments/rig_schema.py",
    "deployments/planning/*.py",
    "deployments/strategies/*.py",
    "deployments/engines/base.py",
    "deployments/engines/flags.py",
    "deployments/engines/llama_cpp.py",
    "deployments/engines/cuda_only.py",
    "deployments/engines/external.py",
    "deployments/engines/external_plan.py",
    "deployments/engines/ik_llama_cpp.py",
    "deployments/engines/mtp.py",
    "deployments/engines/spellings.py",
    "deployments/engines/tabbyapi.py",
    "deployments/engines/vllm.py",
    "deployments/supervision/states.py",
    "deployments/supervision/external_state.py",
    "deployments/supervision/answers.py",
    "deployments/supervision/reconcile.py",
    "deployments/supervision/log_reading.py",
    "deployments/gateway/ambiguity.py",
    "deployments/gateway/constraints.py",
    "deployments/gateway/events.py",
    "deployments/gateway/extras.py",
    "deployments/gateway/fields.py",
    "deployments/gateway/grammar_text.py",
    "deployments/gateway/handover_plan.py",
    "gpus/visible.py",
    "omni/json_text.py",
    "omni/numbers.py",
    "deployments/gateway/routing.py",
    "deployments/gateway/schemas.py",
    "deployments/gateway/shapes.py",
    "chat/transcript.py",
    "chat/timings.py",
    "chat/comparison.py",
}
IMPURE_PACKAGES = {
    "django", "channels", "channels_redis", "celery", "kombu", "redis", "httpx", "pynvml", "psutil",
    "subprocess", "socket", "asyncio", "daphne", "twisted", "huggingface_hub", "rest_framework_api_key",
}  # fmt: skip

# package or name → the only files that may use it
ONLY_IN = {
    "pynvml": {"gpus/nvml.py"},
    "huggingface_hub": {"deployments/hub.py", "deployments/hub_client.py"},
    "httpx2": {"deployments/hub.py", "deployments/hub_client.py"},
    "subprocess": {
        "omni/launcher.py",
        "deployments/engines/programs.py",
        "deployments/supervision/process.py",
        "deployments/supervision/runner.py",
        "deployments/supervision/namespaces.py",
    },
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_pure(path: Path) -> bool:
    return any(path.match(pattern) and relative(path).startswith(pattern.split("/")[0]) for pattern in PURE)


def imports(path: Path) -> set[str]:
    """Every module imported anywhere in the file, type-checking blocks left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def as_file(module: str) -> str | None:
    """The source file a module of ours lies in, or None."""
    if module.split(".")[0] not in APPS:
        return None
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return relative(candidate)
    return None


@pytest.mark.parametrize("path", [p for p in SOURCES if is_pure(p)], ids=relative)
def test_a_pure_module_imports_only_pure_modules(path: Path) -> None:
    for module in imports(path):
        assert module.split(".")[0] not in IMPURE_PACKAGES, f"{relative(path)} imports {module}"
        target = as_file(module)
        if target and not target.endswith("__init__.py"):
            assert is_pure(ROOT / target), f"{relative(path)} is pure and imports {target}, which is not"


def test_the_pure_modules_are_really_looked_at() -> None:
    named = {pattern for pattern in PURE if "*" not in pattern and not (ROOT / pattern).exists()}
    assert not named, f"these pure modules do not exist: {sorted(named)}"


@pytest.mark.parametrize("path", [p for p in SOURCES if relative(p).startswith("gpus/")], ids=relative)
def test_gpus_knows_nothing_of_deployments_and_chat(path: Path) -> None:
    assert not [m for m in imports(path) if m.split(".")[0] in {"deployments", "chat"}]


@pytest.mark.parametrize("path", [p for p in SOURCES if relative(p).startswith("deployments/")], ids=relative)
def test_nothing_below_imports_chat(path: Path) -> None:
    assert not [m for m in imports(path) if m.split(".")[0] == "chat"]


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_an_outside_thing_has_one_door(package: str) -> None:
    users = {relative(p) for p in SOURCES if package in {m.split(".")[0] for m in imports(p)}}
    assert users <= ONLY_IN[package]


def test_only_broadcast_sends_to_groups() -> None:
    users = {relative(p) for p in SOURCES if ".group_send(" in p.read_text()}
    assert users == {"omni/broadcast.py"}


GLUE = ("views", "consumers", "management", "tasks")


@pytest.mark.parametrize("path", [p for p in SOURCES if set(GLUE) & set(p.with_suffix("").parts)], ids=relative)
def test_views_consumers_tasks_and_commands_do_not_import_each_other(path: Path) -> None:
    own = {part for part in path.with_suffix("").parts if part in GLUE}
    for module in imports(path):
        parts = module.split(".")
        others = set(parts[1:]) & set(GLUE) - own if parts[0] in APPS else set()
        assert not others, f"{relative(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_can_be_held_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450
