"""The rig file: what is read, what is written, and mistakes named with their lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.planning.settings import SETTINGS
from deployments.rig.reader import parse
from deployments.rig.words import (
    Rig,
    RigDeployment,
    RigEngine,
    RigError,
    RigModel,
    RigRoute,
    dump,
)

WHOLE = """\
engines:
  - {name: mine, path: /opt/llama-server}
models:
  - {name: small, path: /models/small.gguf}
deployments:
  - name: helper
    engine: llama.cpp
    models: {model: small}
    devices: {model: [CUDA0, CPU]}
    settings: {context: 16384, parallel: 2, kv_cache_k: q8_0, flash_attention: on, gpu_layers: auto}
    extra_args: [--cache-reuse 256]
    purposes: [coding, translation]
routes:
  - {name: fast, deployment: helper, description: The quick one}
"""


def test_a_whole_file_becomes_dataclasses() -> None:
    settings = {
        "context": 16384,
        "parallel": 2,
        "kv_cache_k": "q8_0",
        "flash_attention": "on",
        "gpu_layers": "auto",
    }
    helper = RigDeployment(
        "helper",
        "independent",
        "llama.cpp",
        {"model": "small"},
        {"model": ("CUDA0", "CPU")},
        settings,
        ("--cache-reuse 256",),
        ("coding", "translation"),
    )
    assert parse(WHOLE) == Rig(
        (RigEngine("mine", "/opt/llama-server"),),
        (RigModel("small", "/models/small.gguf"),),
        (helper,),
        (RigRoute("fast", "helper", "The quick one"),),
    )


def test_what_is_written_reads_the_same_again() -> None:
    assert parse(dump(parse(WHOLE))) == parse(WHOLE)


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "deployments:\n", "engines: []\n"]
)
def test_an_empty_file_is_an_empty_rig(text: str) -> None:
    assert parse(text) == Rig()


def test_a_strategy_with_one_role_needs_no_role_names() -> None:
    text = "deployments:\n  - {name: a, models: m, devices: CPU}\n"
    (found,) = parse(text).deployments
    assert (found.models, found.devices) == ({"model": "m"}, {"model": ("CPU",)})


MANY = [f"p{number}" for number in range(13)]
HEAD = "deployments:\n  - name: a\n    models: m\n    devices: CPU\n"


PAIR = (
    "deployments:\n  - name: a\n    strategy: speculative\n    models: {{{models}}}\n  "
    "  devices: {{{devices}}}\n"
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: [", 1, "not YAML"),
        ("deployments:\n\t- name: a", 2, "not YAML"),
        ("---\na: 1\n---\nb: 2\n", 3, "not YAML"),
        ("[" * 5000, 1, "nested too deeply"),
        ("- 1\n", 1, "the file must be"),
        ("deployments: 3\n", 1, "deployments must be a list"),
        ("deployments:\n  - 3\n", 2, "the deployment must be"),
        ("deploymnts: []\n", 1, "no key 'deploymnts'"),
        ("engines:\n\nengines:\n", 3, "'engines' is there twice"),
        ("deployments:\n  - models: m\n    devices: CPU\n", 2, "has no name"),
        (HEAD.replace("name: a", "name: A B"), 2, "cannot be a name"),
        (HEAD.replace("name: a", f"name: {'a' * 61}"), 2, "cannot be a name"),
        (HEAD.replace("name: a", "name: ../a"), 2, "cannot be a name"),
        (HEAD.replace("name: a", "name: [a]"), 2, "name must be a text"),
        (HEAD + "    colour: red\n", 5, "no key 'colour'"),
        (HEAD + "    strategy: magic\n", 5, "no strategy 'magic'"),
        (HEAD + "    settings: 3\n", 5, "settings must be"),
        (
            HEAD + "    settings:\n      context: 4096\n      parallel: 0\n",
            7,
            "parallel is 0",
        ),
        (HEAD + "    settings:\n      contxt: 4096\n", 6, "Did you mean context"),
        (HEAD + "    settings: {context: [1]}\n", 5, "context must be one value"),
        (
            HEAD
            + "    settings:\n      flash_attention: off\n      kv_cache_v: q8_0\n",
            7,
            "kv_cache_v is q8_0",
        ),
        (
            HEAD + "    extra_args:\n      - --swa-full\n      - --tools all\n",
            7,
            "--tools is refused",
        ),
        (
            HEAD + "    extra_args:\n      - --cache-reuse\n      - many\n",
            7,
            "'many' is not a whole number",
        ),
        (HEAD + "    extra_args: --swa-full\n", 5, "extra_args must be a list"),
        (HEAD + "    purposes: coding\n", 5, "purposes must be a list"),
        (HEAD + "    purposes:\n      - coding\n      - My Own\n", 7, "be a purpose"),
        (HEAD + "    purposes: [auto]\n", 5, "has another meaning"),
        (HEAD + "    purposes: [[coding]]\n", 5, "purpose must be a text"),
        (HEAD + "    purposes: [chat, chat]\n", 5, "purpose is named twice"),
        (HEAD + f"    purposes: {MANY}\n", 5, "These are 13 purposes"),
        (HEAD.replace("devices: CPU", "devices: [CPU, CPU]"), 4, "named twice"),
        (HEAD.replace("devices: CPU", "devices: []"), 4, "list of devices is empty"),
        (HEAD.replace("devices: CPU", "devices: '; rm'"), 4, "not a device's name"),
        (HEAD.replace("models: m", "models: {target: m}"), 3, "no key 'target'"),
        (
            HEAD + "  - name: a\n    models: m\n    devices: CPU\n",
            5,
            "'a' is there twice",
        ),
        ("models:\n  - {name: m, path: small.gguf}\n", 2, "not a full path"),
        (
            "engines:\n  - name: e\n    path: /x\n    flavour: magic\n",
            4,
            "flavour is 'magic'",
        ),
        ("routes:\n  - name: r\n", 2, "has no deployment"),
        (
            f"routes:\n  - {{name: r, deployment: a, description: {'x' * 201}}}\n",
            2,
            "longer than 200",
        ),
        (f"models:\n  - {{name: m, path: /{'x' * 500}}}\n", 2, "longer than 500"),
        (
            "models:\n  - {name: a, path: /m}\n  - {name: b, path: /m}\n",
            3,
            "The path '/m' is there twice in models",
        ),
        (
            PAIR.format(models="target: t, draft: d", devices="target: CPU"),
            5,
            "devices lacks the role draft",
        ),
        (
            PAIR.format(models="target: t", devices="target: CPU, draft: CPU"),
            4,
            "models lacks the role draft",
        ),
        ("a: &a [*a]\n", 1, "no key 'a'"),
        ("deployments: &a [*a]\n", 1, "the deployment must be"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(RigError) as refused:
        parse(text)
    assert [
        problem.line for problem in refused.value.problems if says in problem.text
    ] == [line]
    assert f"line {line}: " in str(refused.value)


def test_all_mistakes_are_named_at_once_in_the_order_of_their_lines() -> None:
    text = (
        HEAD.replace("name: a", "name: A")
        + "    settings: {context: 1, paralel: 2}\n    strategy: magic\n"
    )
    with pytest.raises(RigError) as refused:
        parse(text)
    assert [problem.line for problem in refused.value.problems] == [2, 5, 5, 6]


def test_a_file_that_is_too_long_is_not_read() -> None:
    with pytest.raises(RigError, match="longer than"):
        parse("#" * 1_000_001)


@given(st.text(alphabet=st.sampled_from("abc:-[]{}&*!|>'\"# \n\t0,?%@"), max_size=120))
def test_any_text_is_either_a_rig_or_refused(text: str) -> None:
    try:
        parse(text)
    except RigError as error:
        assert all(problem.line >= 1 and problem.text for problem in error.problems)


_words = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
_settings = st.fixed_dictionaries(
    {}, optional={key: st.just(s.default) for key, s in SETTINGS.items()}
)


@given(
    _words,
    _words,
    _settings,
    st.text(min_size=1).filter(lambda t: t.strip() and t.isprintable()),
)
def test_whatever_can_be_written_can_be_read(
    name: str, model: str, settings: dict[str, int | str], description: str
) -> None:
    entry = RigDeployment(
        name, "independent", "", {"model": model}, {"model": ("CPU",)}, settings
    )
    rig = Rig(deployments=(entry,), routes=(RigRoute(f"r-{name}", name, description),))
    assert parse(dump(rig)) == rig


# --- files that are made to take long -------------------------------------------------------------
HOSTILE = {
    "unknown keys": lambda n: "{" + ",".join(f"k{i}" for i in range(n)) + "}",
    "unknown settings": lambda n: (
        f"deployments: [{{settings: {{{','.join(f'k{i}' for i in range(n))}}}}}]"
    ),
    "unknown roles": lambda n: (
        f"deployments: [{{models: {{{','.join(f'k{i}' for i in range(n))}}}}}]"
    ),
    "wrong entries": lambda n: "deployments:\n" + "- a\n" * n,
    "the same name": lambda n: "routes:\n" + "- {name: r, deployment: a}\n" * (n // 4),
    "open brackets": lambda n: "[" * n,
    "open brackets, one a line": lambda n: "[\n" * n,
    "open braces": lambda n: "{" * n,
    "flags": lambda n: f"deployments: [{{name: x, extra_args: [{'--jinja,' * n}]}}]",
    "devices": lambda n: (
        f"deployments: [{{name: x, devices: [{','.join(f'C{i}' for i in range(n))}]}}]"
    ),
    "dashes": lambda n: "- " * n,
    "questions": lambda n: "? " * n,
    "anchors": lambda n: "".join(f"- &a{i} x\n" for i in range(n)),
}


def calls_of(text: str) -> int:
    """How many functions are called, with what the page shows of the mistakes."""
    import sys

    from deployments.rig.lines import excerpt

    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        parse(text)
    except RigError as error:
        excerpt(text, error.problems)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("shape", HOSTILE.values(), ids=HOSTILE.keys())
def test_eight_times_the_file_takes_about_eight_times_the_work(
    shape: Callable[[int], str],
) -> None:
    assert calls_of(shape(3_200)) < 12 * calls_of(shape(400)) + 20_000


def test_aliases_do_not_multiply_the_work() -> None:
    """960 deployments that each name the same 1,500 flags: 48 KB that say a million things."""
    flags, others = (
        "--jinja," * 1_500,
        "{name: x, models: a, devices: CPU, extra_args: *a}," * 960,
    )
    text = (
        f"deployments: [{{name: y, models: a, devices: CPU, extra_args: &a [{flags}]}},"
        f" {others}]"
    )
    with pytest.raises(RigError) as refused:
        parse(text)
    assert "aliases counted each time" in str(refused.value)


def test_a_thousand_mistakes_are_told_up_to_a_number_that_can_be_read() -> None:
    with pytest.raises(RigError) as refused:
        parse("deployments:\n" + "- a\n" * 5_000)
    assert len(refused.value.problems) <= 202
    assert "more mistakes" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("!!int abc", "no int"),
        ("!!bool abc", "no bool"),
        ("9" * 5_000, "no int"),
        ("0x" + "f" * 5_000, "larger than any setting"),
        ("1" + ":1" * 5_000, "larger than any setting"),
        ("!!python/object/apply:os.system [id]", "must be one value"),
        ("!!float abc", "context"),
        ("!!timestamp abc", "context"),
    ],
)
def test_a_value_that_is_not_what_its_tag_says_is_a_mistake_with_a_line(
    value: str, says: str
) -> None:
    text = (
        "deployments:\n- {name: x, models: a, devices: CPU, settings: {context:"
        f" {value}}}}}"
    )
    with pytest.raises(RigError) as refused:
        parse(text)
    assert says in str(refused.value) and "line 2" in str(refused.value)
