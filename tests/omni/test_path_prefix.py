"""The panel below a path of a proxy's (OMNI_PATH_PREFIX): no address in its sources begins at the
root, and a panel with a prefix answers with it and without."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.gateway.endpoints import ENDPOINTS
from deployments.gateway.http_rules import OF_ENGINES
from omni.env import EnvError, envprefix
from omni.forwarded import below
from omni.urls import first_parts, with_prefix

ROOT = Path(__file__).parents[2]

# --- sources --------------------------------------------------------------------------------------
# A quote, a slash, a word: `//`, `/` alone as a sign and comments in scripts are none.
IN_MARKUP = re.compile(
    r"""(?:href|src|action|content|hx-[a-z-]+|url)\s*[=(]\s*["']?/(?!/)"""
)
IN_SCRIPT = re.compile(r"""["'`=]/[a-z]""")
# Who takes a path below the panel's root, and puts the prefix before it.
PREFIXED = re.compile(r"""\b(?:connect|below)\(["'`]/[a-z]""")
# They put the prefix before it themselves, or compare with it what is below the prefix.
KNOW_THE_PREFIX = {
    # What follows /v1 there is no page.
    "deployments/gateway/endpoints.py",
    "deployments/web/snippets.py",
    "deployments/gateway/standalone.py",
    "deployments/services/gateway_metrics.py",
    # Paths of engines.
    "deployments/engines/llama_cpp.py",
    "deployments/engines/vllm.py",
    "omni/middleware.py",
    "omni/settings.py",
    "omni/urls.py",
}
# Whatever begins so is asked of engines and of the gateway, and no page.
OF_PROGRAMS = {path.split("/")[1] for path in (*OF_ENGINES, *ENDPOINTS)}


def sources(folder: str, ending: str) -> Iterator[tuple[str, int, str]]:
    for path in sorted((ROOT / folder).rglob(f"*.{ending}")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield str(path.relative_to(ROOT)), number, line


def test_no_template_and_no_style_has_an_address_at_the_root() -> None:
    wrong = [
        f"{name}:{number}: {line.strip()}"
        for folder, ending in (("templates", "html"), ("static/css", "css"))
        for name, number, line in sources(folder, ending)
        if IN_MARKUP.search(line)
    ]
    assert not wrong, "use {% url %} or {% static %}:\n" + "\n".join(wrong)


def test_no_script_has_an_address_at_the_root() -> None:
    wrong = [
        f"{name}:{number}: {line.strip()}"
        for name, number, line in sources("static/js", "js")
        if IN_SCRIPT.search(PREFIXED.sub("", line))
    ]
    assert not wrong, "use below() of static/js/root.js:\n" + "\n".join(wrong)


def test_no_python_has_an_address_at_the_root() -> None:
    begins = re.compile(rf"/(?:{'|'.join(first_parts() - OF_PROGRAMS)})(?:/|$)")
    wrong = []
    for app in ("omni", "gpus", "deployments", "chat"):
        for path in sorted((ROOT / app).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text())):
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if is_text and begins.match(node.value) and name not in KNOW_THE_PREFIX:
                    wrong.append(f"{name}:{node.lineno}: {node.value!r}")
    assert not wrong, "use reverse():\n" + "\n".join(wrong)


# --- the setting ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("/omni", "/omni"),
        ("/omni/", "/omni"),
        (" /tools/omni ", "/tools/omni"),
        ("/a.b/omni-2_x", "/a.b/omni-2_x"),
        ("omni", None),
        ("/om ni", None),
        ("//omni", None),
        ("/../omni", None),
        ("https://omni.lan/omni", None),
        ("/omni?x", None),
        ("/<b>", None),
    ],
)
def test_a_prefix_is_a_path_or_refused_by_name(raw: str, prefix: str | None) -> None:
    environ = {"OMNI_PATH_PREFIX": raw}
    if prefix is not None:
        assert envprefix("OMNI_PATH_PREFIX", environ) == prefix
        return
    with pytest.raises(EnvError, match=r"OMNI_PATH_PREFIX is .*/omni"):
        envprefix("OMNI_PATH_PREFIX", environ)


@pytest.mark.parametrize("prefix", ["/chat", "/v1", "/static/omni", "/connect"])
def test_a_prefix_that_is_a_page_of_the_panel_is_refused(prefix: str) -> None:
    with pytest.raises(EnvError, match="an address of the panel's own"):
        with_prefix(prefix)


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/omni", "/"),
        ("/omni/", "/"),
        ("/omni/chat/1/", "/chat/1/"),
        ("/chat/1/", "/chat/1/"),
        ("/omnibus/", "/omnibus/"),
        ("/omni/omni/", "/omni/"),
        ("/", "/"),
    ],
)
def test_a_path_is_the_same_with_its_prefix_and_without(path: str, own: str) -> None:
    assert below(path, "/omni") == own


def test_without_a_prefix_a_path_stays_as_it_is() -> None:
    assert [below(path, "") for path in ("/", "/omni/", "//v1/models")] == [
        "/",
        "/omni/",
        "//v1/models",
    ]


def test_a_wrong_prefix_ends_the_start_with_one_line() -> None:
    env = {**os.environ, "OMNI_PATH_PREFIX": "omni"}
    argv = [sys.executable, str(ROOT / "manage.py"), "up"]
    said = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1
    assert said.stderr.strip().splitlines() == [
        "OMNI_PATH_PREFIX is 'omni'; use a path of letters, digits and . _ ~ - such as /omni."
    ]
