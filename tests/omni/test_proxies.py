"""What the panel asks of itself, its engines and servers of one's own goes there, never to a
proxy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

# Who asks the wide world, by whatever way that needs: the hub's client, and the channels of alerts.
OUTSIDE = {
    "deployments/library/hub_bytes.py",
    "deployments/library/hub_client.py",
    "deployments/services/alert_sending.py",
}
HEEDLESS = {
    "urlopen",
    "get",
    "post",
    "put",
    "delete",
    "stream",
    "request",
    "head",
    "patch",
}


def calls() -> Iterator[tuple[str, ast.Call]]:
    root = Path(settings.BASE_DIR)
    for app in ("omni", "gpus", "deployments", "chat"):
        for path in (root / app).rglob("*.py"):
            if (name := str(path.relative_to(root))) not in OUTSIDE:
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.Call):
                        yield f"{name}:{node.lineno}", node


def called(call: ast.Call) -> tuple[str, str]:
    """Module and name, as in httpx.Client; ('', name) for a bare one."""
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        return call.func.value.id, call.func.attr
    return "", call.func.id if isinstance(call.func, ast.Name) else ""


def test_no_client_takes_a_proxy_from_the_environment() -> None:
    wrong = []
    for place, call in calls():
        module, name = called(call)
        words = {word.arg: word.value for word in call.keywords}
        if name in ("Client", "AsyncClient") and module in ("", "httpx", "httpx2"):
            trusts = words.get("trust_env")
            if not (isinstance(trusts, ast.Constant) and trusts.value is False):
                wrong.append(f"{place}: {name} without trust_env=False")
        elif name == "urlopen" or (
            module in ("httpx", "httpx2", "requests") and name in HEEDLESS
        ):
            wrong.append(f"{place}: {module}.{name} goes by the environment's proxy")
    assert not wrong, "\n".join(wrong)
