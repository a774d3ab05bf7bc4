"""The JSON Schema of rig files: it takes what the parser takes and refuses what the parser
refuses."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deployments.engines import flavour_titles
from deployments.planning.settings import SETTINGS
from deployments.rig.apply import apply
from deployments.rig.export import rig_text
from deployments.rig.reader import parse
from deployments.rig.schema import DIALECT, rig_schema
from deployments.rig.words import RigError, dump
from deployments.strategies import STRATEGIES
from tests.deployments import test_apply, test_rig_file
from tests.deployments.rigs import rigs

VALIDATOR = Draft202012Validator(rig_schema())
HEAD = test_rig_file.HEAD


def wrong(text: str) -> list[str]:
    """What the schema has against a file, as a program sees it that reads YAML."""
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_the_schema_is_itself_valid() -> None:
    Draft202012Validator.check_schema(rig_schema())
    assert rig_schema()["$schema"] == DIALECT


def test_it_is_printed_by_export() -> None:
    output = io.StringIO()
    call_command("export", "--schema", stdout=output)
    assert json.loads(output.getvalue()) == rig_schema()


def test_it_names_every_strategy_setting_and_flavour() -> None:
    entry = rig_schema()["properties"]["deployments"]["items"]
    assert entry["properties"]["strategy"]["enum"] == list(STRATEGIES)
    assert set(entry["properties"]["settings"]["properties"]) == set(SETTINGS)
    assert rig_schema()["properties"]["engines"]["items"]["properties"]["flavour"][
        "enum"
    ] == list(flavour_titles())


@pytest.mark.parametrize(
    "text",
    [
        test_rig_file.WHOLE,
        test_apply.WHOLE,
        HEAD,
        "",
        "deployments:\n",
        "engines: []\n",
        "deployments:\n  - {name: a, models: m, devices: [CUDA0, CPU]}\n",
        "deployments:\n  - {name: a, models: {model: m}, devices: {model: CPU}}\n",
        "engines:\n  - {name: e, flavour: external, path: 'http://127.0.0.1:9000'}\n",
        "deployments:\n  - {name: a, engine: e, models: {model: org/Big-1}}\n",
        HEAD
        + "    settings: {flash_attention: on, kv_unified: off, tensor_split: '3,1', gpu_layers:"
        " all}\n",
        HEAD + "    purposes: [coding, my-own_purpose]\n",
        HEAD + "    purposes:\n",
        HEAD + "    extra_args: [--top-k 5, --temp=0.5, --keep, '-1', --swa-full]\n",
    ],
)
def test_what_the_parser_takes_it_takes(text: str) -> None:
    parse(text)
    assert wrong(text) == []


def deployment(strategy: str, models: str, devices: str) -> str:
    return (
        f"deployments:\n  - {{name: a, strategy: {strategy}, models: {models}, devices:"
        f" {devices}}}\n"
    )


BOTH = "{target: t, draft: d}"


@pytest.mark.parametrize(
    "text",
    [
        "- 1\n",
        "deploymnts: []\n",
        "deployments: 3\n",
        "deployments:\n  - 3\n",
        "deployments:\n  - models: m\n    devices: CPU\n",
        HEAD.replace("name: a", "name: A B"),
        HEAD.replace("name: a", "name: [a]"),
        HEAD.replace("name: a", f"name: {'a' * 61}"),
        HEAD + "    colour: red\n",
        HEAD + "    strategy: magic\n",
        HEAD + "    settings: 3\n",
        HEAD + "    settings: {parallel: 0}\n",
        HEAD + "    settings: {context: 255}\n",
        HEAD + "    settings: {contxt: 4096}\n",
        HEAD + "    settings: {context: [1]}\n",
        HEAD + "    settings: {kv_cache_k: q9}\n",
        HEAD + "    settings: {kv_cache_k: off}\n",
        HEAD + "    settings: {tensor_split: '3'}\n",
        HEAD + "    extra_args: --swa-full\n",
        HEAD + "    extra_args: [--tools all]\n",
        HEAD + "    extra_args: [--top-k 5 --model /etc/passwd]\n",
        HEAD + "    extra_args: [--no-such-flag]\n",
        HEAD + "    purposes: coding\n",
        HEAD + "    purposes: [My Own]\n",
        HEAD + "    purposes: [auto]\n",
        HEAD + "    purposes: [chat, chat]\n",
        HEAD + f"    purposes: {test_rig_file.MANY}\n",
        HEAD.replace("devices: CPU", "devices: [CPU, CPU]"),
        HEAD.replace("devices: CPU", "devices: []"),
        HEAD.replace("devices: CPU", "devices: '; rm'"),
        HEAD.replace("models: m", "models: {target: m}"),
        HEAD.replace("models: m", "models: ' '"),
        deployment("speculative", "t", "CPU"),
        deployment("speculative", "{draft: d}", "{target: CPU}"),
        deployment("speculative", BOTH, "{target: CPU}"),
        deployment("speculative", "{target: t}", "{target: CPU, draft: CPU}"),
        deployment("prefill_decode", "{prefill: m}", "{prefill: CPU}"),
        "models:\n  - {name: m, path: small.gguf}\n",
        "models:\n  - {name: m, path: '/a\\0b'}\n".replace("'", '"'),
        f"models:\n  - {{name: m, path: /{'a' * 500}}}\n",
        "engines:\n  - {name: e, path: /x, flavour: magic}\n",
        "engines:\n  - {name: e, path: 'http://127.0.0.1:9000'}\n",
        "deployments:\n  - {name: a, models: m}\n",
        "routes:\n  - name: r\n",
        f"routes:\n  - {{name: r, deployment: a, description: {'a' * 201}}}\n",
    ],
)
def test_what_the_parser_refuses_it_refuses(text: str) -> None:
    with pytest.raises(RigError):
        parse(text)
    assert wrong(text)


@given(rigs())
def test_whatever_omni_writes_is_valid(rig: Any) -> None:
    assert wrong(dump(rig)) == []
    assert parse(dump(rig)) == rig


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from(["auto", "on", "CPU", "m", "3,1", "", " "])
)
_values = (
    _scalars
    | st.lists(_scalars, max_size=2)
    | st.dictionaries(st.sampled_from(["model", "target"]), _scalars)
)
_broken = st.fixed_dictionaries(
    {
        "name": st.just("a") | _values,
        "models": st.just("m") | _values,
        "devices": st.just("CPU") | _values,
    },
    optional={
        **dict.fromkeys(("strategy", "engine", "extra_args"), _values),
        "settings": st.dictionaries(
            st.sampled_from([*SETTINGS, "colour"]), _values, max_size=3
        ),
    },
)


@given(_broken)
def test_what_it_takes_the_parser_takes_but_for_settings_that_exclude_each_other(
    entry: dict[str, Any],
) -> None:
    text = yaml.safe_dump({"deployments": [entry]})
    if wrong(text):
        return
    try:
        parse(text)
    except RigError as error:
        assert all(
            "which needs" in p.text
            or "more than" in p.text
            or "value is missing" in p.text
            or "belongs to no flag" in p.text
            for p in error.problems
        ), str(error)


@pytest.mark.django_db
def test_the_export_of_a_rig_is_valid(host: object) -> None:
    apply(test_apply.WHOLE)
    assert "helper" in rig_text()
    assert wrong(rig_text()) == []
