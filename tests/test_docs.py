"""README and docs say what is so: settings, commands, files and functions that they name exist, and
no setting, command or room is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/monitoring.md",
    "docs/proxy.md",
    "docs/security.md",
)
FOLDERS = "(?:omni|gpus|deployments|chat|static|tests|templates|benchmarks|docs)"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Hidden from the README on purpose: the panel's own parts, started by `up`.
INTERNAL_COMMANDS = {"agent", "gateway", "prepare", "sampler", "serve", "stopall", "up"}


def test_every_environment_variable_is_documented_and_every_documented_one_is_read() -> (
    None
):
    source = "\n".join(p.read_text() for p in (ROOT / "omni").rglob("*.py"))
    read = set(re.findall(r'"(OMNI_[A-Z_]+)"', source))
    documented = set(re.findall(r"`(OMNI_[A-Z_]+)`", README)) - {"OMNI_SECRET_KEY_FILE"}
    assert read == documented


def test_every_command_is_documented() -> None:
    folders = [
        ROOT / app / "management" / "commands"
        for app in ("omni", "gpus", "deployments", "chat")
    ]
    commands = {path.stem for folder in folders for path in folder.glob("[a-z]*.py")}
    table = README[README.index("## Command line") : README.index("## Gateway")]
    documented = set(re.findall(r"`([a-z]+)[ `]", table)) - {"json"}
    assert commands - INTERNAL_COMMANDS == documented


@pytest.mark.parametrize("target", ["up", "test", "check", "lock", "help"])
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES)
def test_files_and_functions_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(
        rf"`({FOLDERS}/[\w./]*|[A-Z]+\.md|\w+\.toml)(?::([\w.]+))?`", text
    )
    assert named
    missing = {
        f"{path}:{name}" if name else path
        for path, name in named
        # What a run of the tests writes is not there before.
        if not path.startswith("tests/artifacts/") and not is_there(path, name)
    }
    assert not missing


def is_there(path: str, name: str) -> bool:
    """Whether the file exists and defines this function, class or method."""
    file = ROOT / path
    if not file.exists() or not name:
        return file.exists()
    return name in defined_in(file)


def defined_in(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, DEFINITIONS):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{n.name}" for n in node.body if isinstance(n, DEFINITIONS)
            }
    return found


def test_every_room_of_deployments_is_described() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "deployments").glob("*/__init__.py")}
    described = set(re.findall(r"^\| `deployments/(\w+)/` \|", text, re.M))
    assert described == rooms - {"migrations"}


def test_the_picture_is_there() -> None:
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / picture).stat().st_size > 10_000


def test_tests_that_the_security_page_names_exist() -> None:
    named = set(
        re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs" / "security.md").read_text())
    )
    missing = {name for name in named if not (ROOT / name).exists()}
    assert len(named) > 10 and not missing
