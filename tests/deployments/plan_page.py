"""Reads the Plan page as its tests need it."""

from __future__ import annotations

import html
import re
import shlex

from django.test import Client

from tests.helpers import squeezed


def page(client: Client, query: str = "", **headers: str) -> str:
    answer = client.get(f"/plan/?{query}", headers=headers)
    assert answer.status_code == 200, (query, answer.status_code)
    return squeezed(answer.content.decode())


def card_of(text: str, strategy: str) -> str:
    (card,) = re.findall(
        rf'<article [^>]*id="plan-{strategy}".*?</article>', text, re.S
    )
    return card


def shown_commands(text: str) -> list[list[str]]:
    found = re.findall(r'<pre id="command-[^>]*>(.*?)</pre>', text, re.S)
    return [shlex.split(html.unescape(re.sub(r"<[^>]+>", "", each))) for each in found]
