"""What the import contracts of pyproject.toml cannot say about the code's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("omni", "gpus", "deployments", "chat")
SOURCES = sorted(
    p for app in APPS for p in (ROOT / app).rglob("*.py") if "migrations" not in p.parts
)
ROOMS = sorted(
    folder
    for folder in (ROOT / "deployments").rglob("*")
    if (folder / "__init__.py").exists()
    and not {"migrations", "management"} & set(folder.parts)
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_only_broadcast_sends_to_groups() -> None:
    users = {relative(p) for p in SOURCES if ".group_send(" in p.read_text()}
    assert users == {"omni/broadcast.py"}


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_a_room_says_what_it_is_for(room: Path) -> None:
    first = (room / "__init__.py").read_text().lstrip()
    assert first.startswith('"""')
