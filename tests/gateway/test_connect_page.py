"""The page that says how a program is connected: for whom, with which names, and what to copy. The
texts themselves are run in tests/browser/test_behind_a_proxy.py."""

from __future__ import annotations

import html
import json
import re
import shlex
from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from deployments.gateway.table import Serving, Table
from deployments.instances.address import EngineAddress
from deployments.models import ApiKey, Route
from deployments.web.snippets import KINDS, Wanted, snippets
from deployments.web.views.connect import names_to_ask
from tests.gateway.engine import make_deployment
from tests.helpers import free_port

PAGE = "/connect/"
WANTED = Wanted("https://omni.lan/omni", "coder", 16384)
TEXTS = {each.name: each.text for each in snippets(WANTED)}


def serving(name: str, state: str = "ready", **more: Any) -> Serving:
    address = EngineAddress("http://127.0.0.1:1") if state == "ready" else None
    return Serving(name, state, address, **more)


# --- what to copy ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name, *_ in KINDS])
def test_every_text_has_the_address_and_the_model_and_no_key(name: str) -> None:
    assert "https://omni.lan/omni" in TEXTS[name] and "coder" in TEXTS[name]
    assert name == "zed" or "OMNI_KEY" in TEXTS[name]


def test_the_shells_texts_are_one_command_and_settings() -> None:
    words = shlex.split(TEXTS["curl"].replace("\\\n", " "))
    assert words[2] == "https://omni.lan/omni/v1/chat/completions"
    assert json.loads(words[words.index("-d") + 1])["model"] == "coder"
    lines = dict(line.split("=", 1) for line in TEXTS["agent"].splitlines())
    assert lines["export OPENAI_BASE_URL"] == '"https://omni.lan/omni/v1"'
    assert lines["export ANTHROPIC_BASE_URL"] == '"https://omni.lan/omni"'


def test_the_editors_texts_can_be_read_as_what_they_are() -> None:
    model = yaml.safe_load(TEXTS["continue"])["models"][0]
    assert model["apiBase"] == "https://omni.lan/omni/v1" and model["model"] == "coder"
    provider = json.loads(TEXTS["zed"])["language_models"]["openai_compatible"]["Omni"]
    assert provider["api_url"] == "https://omni.lan/omni/v1"
    assert provider["available_models"][0]["max_tokens"] == 16384


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_the_python_texts_compile(name: str) -> None:
    compile(TEXTS[name], name, "exec")


# --- the names ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("there", "routes", "names"),
    [
        ([], {}, {}),
        ([serving("stopped", "stopped")], {}, {}),
        ([serving("failed", "failed")], {}, {}),
        (
            [serving("smol", context_tokens=4096), serving("big", context_tokens=8192)],
            {"public": "big"},
            {"auto": 4096, "big": 8192, "smol": 4096, "public": 8192},
        ),
        ([serving("vectors", kind="embedding")], {}, {}),
        (
            [serving("asleep", "stopped", is_unloaded=True, is_wanted=True)],
            {},
            {"auto": 0, "asleep": 0},
        ),
        ([serving("smol")], {"auto": "smol"}, {"auto": 0, "smol": 0}),
    ],
)
def test_the_names_are_those_that_answer_with_auto_first(
    there: list[Serving], routes: dict[str, str], names: dict[str, int]
) -> None:
    table = Table({each.name: each for each in there}, routes)
    assert list(names_to_ask(table).items()) == list(names.items())


# --- the page -------------------------------------------------------------------------------------
def page(client: Client, **asked: str) -> str:
    answer = client.get(PAGE, asked)
    assert answer.status_code == 200
    return html.unescape(answer.content.decode())


def test_without_a_deployment_it_says_what_to_do_next(operator: Client) -> None:
    text = page(operator)
    assert "Nothing answers yet" in text and 'id="snippet-' not in text
    assert "http://testserver/v1" in text


def test_a_name_is_chosen_and_one_that_does_not_answer_is_said(
    operator: Client,
) -> None:
    deployment = make_deployment("smol", free_port(), state="ready")
    Route.objects.create(name="public", deployment=deployment)
    chosen = re.compile(r'<option value="([^"]+)" selected')
    assert chosen.findall(page(operator)) == ["auto"]
    assert chosen.findall(page(operator, model="public")) == ["public"]
    text = page(operator, model="<b>gone")
    assert chosen.findall(text) == ["auto"] and "Nothing answers as" in text


def test_htmx_gets_the_part_that_depends_on_the_model(operator: Client) -> None:
    make_deployment("smol", free_port(), state="ready")
    answer = operator.get(PAGE, {"model": "smol"}, headers={"HX-Request": "true"})
    text = html.unescape(answer.content.decode())
    assert "<html" not in text and '"model": "smol"' in text


def test_the_keys_are_the_readers_own_that_still_work(
    operator: Client, operator_user: User, admin: Client, admin_user: User
) -> None:
    def made(name: str, **more: Any) -> str:
        _, secret = ApiKey.objects.create_key(name=name, **more)
        return secret

    past = timezone.now() - timedelta(days=1)
    secret = made("laptop", owner=operator_user)
    made("old", owner=operator_user, expiry_date=past)
    made("lost", owner=operator_user, revoked=True)
    made("theirs", owner=admin_user)
    made("command-line")

    text = page(operator)
    assert "laptop · " in text and secret not in text
    for name in ("old", "lost", "theirs", "command-line"):
        assert f"{name} · " not in text
    text = page(admin)
    assert "theirs · " in text and "command-line · " in text
    assert "laptop · " not in text


def test_who_has_no_key_is_told_where_one_is_made(
    operator: Client, admin: Client, viewer: Client
) -> None:
    assert "You have no key yet" in page(operator)
    assert 'href="/keys/">Make a key' in page(operator)
    assert 'href="/keys/">' in page(admin)
    assert "Your role does not include asking models" in page(viewer)


def test_it_is_for_who_is_logged_in(anonymous: Client) -> None:
    answer = anonymous.get(PAGE)
    assert answer["Location"] == "/login/?next=/connect/"
