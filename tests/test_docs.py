"""The README says what is so: settings, commands and files that it names exist, and none is left
out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# Hidden from the README on purpose: the panel's own parts, started by `up`.
INTERNAL_COMMANDS = {"agent", "prepare", "sampler", "serve", "stopall", "up"}


def test_every_environment_variable_is_documented_and_every_documented_one_is_read() -> None:
    source = "\n".join(p.read_text() for p in (ROOT / "omni").rglob("*.py"))
    read = set(re.findall(r'"(OMNI_[A-Z_]+)"', source))
    documented = set(re.findall(r"`(OMNI_[A-Z_]+)`", README)) - {"OMNI_SECRET_KEY_FILE"}
    assert read == documented


def test_every_command_is_documented() -> None:
    folders = [
        ROOT / app / "management" / "commands" for app in ("omni", "gpus", "deployments", "chat")
    ]
    commands = {path.stem for folder in folders for path in folder.glob("[a-z]*.py")}
    table = README[README.index("## Command line") : README.index("## Gateway")]
    documented = set(re.findall(r"`([a-z]+)[ `]", table)) - {"json"}
    assert commands - INTERNAL_COMMANDS == documented


@pytest.mark.parametrize("target", ["up", "test", "check", "lock", "help"])
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.M)


def test_files_that_the_readme_names_exist() -> None:
    named = set(
        re.findall(r"`((?:omni|gpus|deployments|chat|static|tests|templates)/[\w./]*)`", README)
    )
    # What a run of the tests writes is not there before.
    missing = {
        name
        for name in named
        if not name.startswith("tests/artifacts/") and not (ROOT / name).exists()
    }
    assert named and not missing


def test_the_picture_is_there() -> None:
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / picture).stat().st_size > 10_000


def test_tests_that_the_security_page_names_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs" / "security.md").read_text()))
    missing = {name for name in named if not (ROOT / name).exists()}
    assert len(named) > 10 and not missing
