"""Extra engine flags: an allow-list by name, with typed values."""

from __future__ import annotations

import re

import pytest

from deployments.engines.flag_table import ALLOWED, DANGEROUS, MANAGED, SHORT
from deployments.engines.flags import allowed_args, require_flags
from omni.errors import OmniError


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], ()),
        (["--swa-full"], ("--swa-full",)),
        (["--cache-reuse 256"], ("--cache-reuse", "256")),
        (["--cache-reuse=256"], ("--cache-reuse", "256")),
        (["--cache-reuse", "256"], ("--cache-reuse", "256")),
        (["-nkvo", "--seed -1"], ("--no-kv-offload", "--seed", "-1")),
        (
            ["--temp 0.7", "--numa distribute"],
            ("--temp", "0.7", "--numa", "distribute"),
        ),
        (["--tensor-split 3,1"], ("--tensor-split", "3,1")),
        (["--presence-penalty -1.5"], ("--presence-penalty", "-1.5")),
        (["--chat-template chatml"], ("--chat-template", "chatml")),
    ],
)
def test_allowed_flags_become_separate_words(
    raw: list[str], words: tuple[str, ...]
) -> None:
    assert allowed_args(raw) == words


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (["--api-key-file /etc/passwd"], "refused_extra_arg", "reads or writes files"),
        (["--log-file=/tmp/x"], "refused_extra_arg", "reads or writes files"),
        (["--slot-save-path /"], "refused_extra_arg", "reads or writes files"),
        (["-hf ggml-org/models"], "refused_extra_arg", "network"),
        (["--host 0.0.0.0"], "refused_extra_arg", "network"),
        (["--port 1"], "refused_extra_arg", "network"),
        (["--rpc 10.0.0.1:1"], "refused_extra_arg", "network"),
        (["--tools all"], "refused_extra_arg", "run code"),
        (["--no-agent"], "refused_extra_arg", "run code"),
        (["--mcp-servers-json {}"], "refused_extra_arg", "run code"),
        (["-c 4096"], "refused_extra_arg", "Use the deployment's context"),
        (["--n-gpu-layers 3"], "refused_extra_arg", "Use the deployment's gpu_layers"),
        (["-m /x.gguf"], "refused_extra_arg", "Use the deployment's models"),
        (["--metrics"], "refused_extra_arg", "needs no change"),
        (["--top-kk 3"], "refused_extra_arg", "Did you mean --top-k"),
        (["--frobnicate"], "refused_extra_arg", "not among the allowed flags"),
        (["rm -rf /"], "bad_extra_arg", "belongs to no flag"),
        (["--top-k"], "bad_extra_arg", "value is missing"),
        (["--top-k --swa-full"], "bad_extra_arg", "looks like another flag"),
        (["--top-k -x"], "bad_extra_arg", "looks like another flag"),
        (["--top-k 1.5"], "bad_extra_arg", "whole number"),
        (["--top-k 1e3"], "bad_extra_arg", "whole number"),
        (["--top-p 1.5"], "bad_extra_arg", "from 0 to 1"),
        (["--top-k 1000001"], "bad_extra_arg", "from 0 to 1000000"),
        (["--keep 99999999"], "bad_extra_arg", "to 16777216"),
        (["--numa all"], "bad_extra_arg", "not one of"),
        (["--chat-template ../../etc/passwd"], "bad_extra_arg", "plain word"),
        (["--chat-template {{x}}"], "bad_extra_arg", "plain word"),
        (["--tensor-split 3;1"], "bad_extra_arg", "list of numbers"),
        (["--swa-full\n--tools all"], "bad_extra_arg", "not a line of text"),
        (["--swa-full\x00"], "bad_extra_arg", "not a line of text"),
    ],
)
def test_everything_else_is_refused_with_the_reason(
    raw: list[str], code: str, says: str
) -> None:
    with pytest.raises(OmniError) as refused:
        allowed_args(raw)
    assert refused.value.code == code
    assert says in str(refused.value)


def test_no_flag_is_on_two_lists() -> None:
    assert not set(ALLOWED) & set(DANGEROUS)
    assert not set(ALLOWED) & set(MANAGED)
    assert not set(DANGEROUS) & set(MANAGED)
    assert not {
        name
        for name in SHORT
        if name in ALLOWED or name in DANGEROUS or name in MANAGED
    }


def test_the_real_engine_has_every_flag_that_is_allowed(
    real_flags: frozenset[str],
) -> None:
    assert not set(ALLOWED) - real_flags
    assert not set(SHORT) - real_flags


def test_no_flag_of_the_real_engine_that_takes_a_file_or_an_address_is_allowed(
    help_text: str,
) -> None:
    risky = re.compile(
        r"(?:\b|_)(FNAME|FILE|PATH|URL|HOST|SERVERS|ORIGINS|JSON|SCHEMA|GRAMMAR)\b"
    )
    heads = [
        line
        for line in help_text.splitlines()
        if line.startswith("-") and risky.search(line[:60])
    ]
    named = {name for head in heads for name in re.findall(r"--[a-z][\w-]+", head[:40])}
    assert {"--log-file", "--grammar-file", "--model-url"} <= named
    assert not named & set(ALLOWED)


def test_a_flag_the_engine_lacks_is_answered_with_its_nearest() -> None:
    with pytest.raises(
        OmniError, match="has no flag --ctx-sice.*nearest one it has is --ctx-size"
    ):
        require_flags(["--ctx-sice", "-5", "--ctx-size"], {"--ctx-size"}, "mine")
