"""What each flavour says of its commands, and what is read out of those of the version before."""

from __future__ import annotations

import ast
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from deployments.engines import FLAVOURS, get_flavour
from deployments.engines.base import DraftSpec, ServerSpec
from deployments.planning.launch_facts import LaunchFacts, read_launch_facts
from deployments.planning.plan import (
    KEY_FILE,
    PORT,
    SOCKET,
    DeviceFacts,
    EngineFacts,
    filled_argv,
)
from deployments.supervision.records_before import facts_of
from tests.deployments.engine_help import help_of

migration = import_module("deployments.migrations.0012_launch_facts")
GB = 1 << 30
CPU = DeviceFacts("CPU", "cpu", 24 * GB)
CUDA = tuple(
    DeviceFacts(f"CUDA{n}", "cuda", 32 * GB, 30 * GB, gpu_uuid=f"GPU-{n}")
    for n in range(3)
)
RPC = tuple(
    DeviceFacts(f"RPC{n}", "rpc", 8 * GB, endpoint=f"10.0.0.{n}:900") for n in range(2)
)
RECORDED = {
    "ik_llama.cpp": "ik_llama_cpp_help",
    "vllm": "vllm_flags",
    "tabbyapi": "tabbyapi_flags",
}
PLACES = {SOCKET: "/run/a.sock", PORT: 18000, KEY_FILE: "/k"}
DRAFT = DraftSpec("draft-simple", "/m/draft", (CUDA[2],))
BY_NGRAMS = DraftSpec("ngram-simple")
# Flavour, what is asked for, and what is said of it beside flavour, model and alias.
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama.cpp", {}, {}),
    ("llama.cpp", {"settings": {"parallel": 4}}, {"slots": 4}),
    ("llama.cpp", {"slots_folder": "/s/one"}, {"slots_folder": "/s/one"}),
    ("llama.cpp", {"kind": "embedding"}, {"kind": "embedding"}),
    ("llama.cpp", {"kind": "reranker"}, {"kind": "reranker"}),
    # Cards are numbered again among those that the process sees.
    ("llama.cpp", {"devices": (CUDA[1], CPU)}, {"devices": ("CUDA0",)}),
    (
        "llama.cpp",
        {"devices": (RPC[1], CUDA[0], RPC[0])},
        {
            "devices": ("RPC0", "CUDA0", "RPC1"),
            "rpc_endpoints": ("10.0.0.1:900", "10.0.0.0:900"),
        },
    ),
    (
        "llama.cpp",
        {"devices": CUDA[:2], "split_mode": "tensor"},
        {"devices": ("CUDA0", "CUDA1"), "split_mode": "tensor"},
    ),
    (
        "llama.cpp",
        {"devices": CUDA[:1], "draft": DRAFT},
        {"devices": ("CUDA0", "CUDA1"), "draft_path": "/m/draft", "drafts": True},
    ),
    ("llama.cpp", {"draft": BY_NGRAMS}, {"drafts": True}),
    ("ik_llama.cpp", {}, {}),
    (
        "ik_llama.cpp",
        {
            "devices": CUDA[:2],
            "split_mode": "graph",
            "draft": DRAFT,
            "settings": {"parallel": 2},
        },
        {
            "devices": ("CUDA0", "CUDA1", "CUDA2"),
            "split_mode": "graph",
            "draft_path": "/m/draft",
            "drafts": True,
            "slots": 2,
        },
    ),
    ("vllm", {"devices": CUDA[:2]}, {"is_folder": True}),
    (
        "vllm",
        {"devices": CUDA[:2], "settings": {"parallel": 8}},
        {"is_folder": True, "slots": 8},
    ),
    ("tabbyapi", {"devices": CUDA[:2]}, {"is_folder": True}),
    (
        "tabbyapi",
        {"devices": CUDA[:2], "draft": DRAFT, "settings": {"parallel": 3}},
        {"is_folder": True, "draft_path": "/m/draft", "drafts": True, "slots": 3},
    ),
]


def made(flavour: str, changes: dict[str, Any], real_flags: frozenset[str]) -> Any:
    own = get_flavour(flavour)
    flags = (
        own.parse_flags(help_of(RECORDED[flavour]))
        if flavour in RECORDED
        else real_flags
    )
    engine = EngineFacts("e", flavour, "/opt/engine", flags)
    spec = ServerSpec(engine, "/m/model", (CPU,), alias="mine", context_tokens=4096)
    return own.command(replace(spec, **changes))


@pytest.mark.parametrize(("flavour", "changes", "says"), CASES)
def test_a_flavour_says_what_it_was_told(
    flavour: str,
    changes: dict[str, Any],
    says: dict[str, Any],
    real_flags: frozenset[str],
) -> None:
    expected = LaunchFacts(flavour=flavour, model_path="/m/model", alias="mine")
    assert made(flavour, changes, real_flags).launch == replace(expected, **says)


@pytest.mark.parametrize(
    ("flavour", "changes"),
    [(name, changes) for name, changes, _ in CASES if name != "tabbyapi"],
)
def test_the_command_of_the_version_before_tells_the_same(
    flavour: str, changes: dict[str, Any], real_flags: frozenset[str]
) -> None:
    command = made(flavour, changes, real_flags)
    argv = filled_argv(command.argv, PLACES)
    assert facts_of(argv) == command.launch
    assert read_launch_facts(migration.facts_of(argv)) == command.launch


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], LaunchFacts()),
        (["/bin/true"], LaunchFacts()),
        (["/bin/vllm", "serve"], LaunchFacts()),
        (["/bin/llama-server", "-m"], LaunchFacts(flavour="llama.cpp")),
        (
            ["/o/ggml-rpc-server", "-H", "10.0.0.9", "-p", "1", "-t", "2", "-d", "CPU"],
            LaunchFacts(bind_address="10.0.0.9"),
        ),
        (
            ["/o/python", "/o/main.py", "--config", "config.yml"],
            LaunchFacts(flavour="tabbyapi", is_folder=True),
        ),
        (
            ["/o/llama-server", "-m", "/m/a", "-np", "many", "--rpc", ",h:1,"],
            LaunchFacts(flavour="llama.cpp", model_path="/m/a", rpc_endpoints=("h:1",)),
        ),
    ],
)
def test_what_an_older_command_does_not_tell_is_not_known(
    argv: list[str], expected: LaunchFacts
) -> None:
    assert facts_of(argv) == expected
    assert read_launch_facts(migration.facts_of(argv)) == expected


@pytest.mark.parametrize("argv", [None, "llama-server -m x", [1, 2], {"-m": "x"}])
def test_a_row_whose_command_is_none_is_left_without_facts(argv: Any) -> None:
    assert migration.facts_of(argv) == {}


@pytest.mark.parametrize("flavour", sorted(FLAVOURS))
def test_every_flavour_says_who_it_is(flavour: str) -> None:
    own = FLAVOURS[flavour]
    assert (own.flavour, bool(own.title)) == (flavour, True)


# --- nobody else reads commands -------------------------------------------------------------------
ROOT = Path(__file__).resolve().parents[2] / "deployments"
# Engines make them; records of the version before hold nothing else.
MAY_READ = ("engines/", "migrations/", "supervision/records_before.py")


def is_command(node: ast.AST) -> bool:
    """`argv`, `something.argv` or `something["argv"]`; what this process was called with is not."""
    if isinstance(node, ast.Attribute):
        return node.attr == "argv" and not (
            isinstance(node.value, ast.Name) and node.value.id == "sys"
        )
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "argv"
    return isinstance(node, ast.Name) and node.id == "argv"


def reads(node: ast.AST) -> bool:
    """Whether something is learned from a command: a word of it but the program, or whether it has
    one."""
    if isinstance(node, ast.Subscript):
        is_program = isinstance(node.slice, ast.Constant) and node.slice.value == 0
        return is_command(node.value) and not is_program
    if isinstance(node, ast.Compare):
        pairs = zip(node.ops, node.comparators, strict=True)
        return any(
            isinstance(op, ast.In | ast.NotIn) and is_command(right)
            for op, right in pairs
        )
    if isinstance(node, ast.Call):
        called = node.func
        name = (
            called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        )
        if name in ("index", "count") and isinstance(called, ast.Attribute):
            return is_command(called.value)
        return name in ("zip", "iter", "enumerate", "set") and any(
            map(is_command, node.args)
        )
    return False


def test_outside_of_engines_nobody_learns_anything_from_a_command() -> None:
    files = [path for path in ROOT.rglob("*.py") if "argv" in path.read_text()]
    found = [
        f"{name}:{node.lineno}"
        for path in files
        if not (name := path.relative_to(ROOT).as_posix()).startswith(MAY_READ)
        for node in ast.walk(ast.parse(path.read_text()))
        if reads(node)
    ]
    assert len(files) > 10 and found == []


@pytest.mark.parametrize(
    "code",
    [
        "record.argv[1:2] == ('serve',)",
        "'-m' in instance.argv",
        "zip(argv, argv[1:])",
        "list(zip(plan.argv, rest))",
        "argv.index('-m')",
        "{'--rerank'} & set(argv)",
        "spec['argv'][3]",
    ],
)
def test_a_reading_would_be_found(code: str) -> None:
    assert any(reads(node) for node in ast.walk(ast.parse(code)))
