"""How programs are told to ask this panel: texts to copy, for the address, model and key of one
person. The key itself is never in them, only the environment variable that holds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

KEY_VARIABLE = "OMNI_KEY"
QUESTION = "Say hello."
# Of a model whose context is not known.
USUAL_CONTEXT_TOKENS = 8192


@dataclass(frozen=True)
class Wanted:
    """`root` is the panel's address, to which /v1 is appended."""

    root: str
    model: str
    context_tokens: int = 0

    @property
    def address(self) -> str:
        return f"{self.root}/v1"


@dataclass(frozen=True)
class Snippet:
    """`name` is its place on the page; `where` says what to do with the text."""

    name: str
    title: str
    where: str
    text: str


def snippets(wanted: Wanted) -> list[Snippet]:
    """All of them, in the order of the page."""
    return [
        Snippet(name, title, where, write(wanted))
        for name, title, where, write in KINDS
    ]


def _curl(wanted: Wanted) -> str:
    body = {
        "model": wanted.model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 200,
        "stream": True,
    }
    return (
        f"curl --no-buffer {wanted.address}/chat/completions \\\n"
        f'  -H "Authorization: Bearer ${KEY_VARIABLE}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{json.dumps(body)}'"
    )


def _openai(wanted: Wanted) -> str:
    return f"""\
import os
from openai import OpenAI

client = OpenAI(
    base_url="{wanted.address}",
    api_key=os.environ["{KEY_VARIABLE}"],
)
stream = client.chat.completions.create(
    model="{wanted.model}",
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
    max_tokens=200,
    stream=True,
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
"""


def _anthropic(wanted: Wanted) -> str:
    return f"""\
import os
from anthropic import Anthropic

client = Anthropic(
    base_url="{wanted.root}",
    auth_token=os.environ["{KEY_VARIABLE}"],
)
with client.messages.stream(
    model="{wanted.model}",
    max_tokens=200,
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
"""


def _continue(wanted: Wanted) -> str:
    return f"""\
name: Omni
version: 0.0.1
schema: v1
models:
  - name: Omni {wanted.model}
    provider: openai
    model: {json.dumps(wanted.model)}
    apiBase: {wanted.address}
    apiKey: ${{{{ secrets.{KEY_VARIABLE} }}}}
    roles: [chat, edit, apply]
"""


def _zed(wanted: Wanted) -> str:
    model = {
        "name": wanted.model,
        "display_name": f"Omni {wanted.model}",
        "max_tokens": wanted.context_tokens or USUAL_CONTEXT_TOKENS,
    }
    provider = {"api_url": wanted.address, "available_models": [model]}
    settings = {"language_models": {"openai_compatible": {"Omni": provider}}}
    return json.dumps(settings, indent=2)


def _agent(wanted: Wanted) -> str:
    return f"""\
export OPENAI_BASE_URL="{wanted.address}"
export OPENAI_API_KEY="${KEY_VARIABLE}"
export OPENAI_MODEL="{wanted.model}"
export ANTHROPIC_BASE_URL="{wanted.root}"
export ANTHROPIC_AUTH_TOKEN="${KEY_VARIABLE}"
export ANTHROPIC_MODEL="{wanted.model}"
"""


Writer = Callable[[Wanted], str]
KINDS: tuple[tuple[str, str, str, Writer], ...] = (
    ("curl", "curl", "In a shell; the answer comes in pieces.", _curl),
    ("openai", "Python, OpenAI's client", "pip install openai", _openai),
    ("anthropic", "Python, Anthropic's client", "pip install anthropic", _anthropic),
    (
        "agent",
        "A coding agent",
        "In the shell that starts it. Most take one of the two sets; give the model's name in the"
        " agent's own settings where it does not read the variable.",
        _agent,
    ),
    (
        "continue",
        "VS Code or JetBrains, with Continue",
        f"~/.continue/config.yaml; the key stands as {KEY_VARIABLE}=… in ~/.continue/.env",
        _continue,
    ),
    (
        "zed",
        "Zed",
        "settings.json; the key is entered in the agent's settings, or stands in OMNI_API_KEY.",
        _zed,
    ),
)
