"""Records of the version before: what an engine that runs since then was started with.

Kept for the upgrade alone. Up to version 0.1.0 of November 2026 a runner wrote the command of its
engine into the record and nothing else about it, and it goes on writing that as long as its engine
runs. Rows of such engines got their facts in the migration `launch_facts`.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployments.formats.kinds import Kind
from deployments.planning.launch_facts import LaunchFacts


def facts_of(argv: Sequence[str]) -> LaunchFacts:
    """What stands in a command as the version before made them.

    Of an engine that is configured by a file nothing does: it stays unknown until its next start.
    """
    if tuple(argv[1:2]) == ("serve",) and len(argv) > 2:
        return _of_vllm(argv)
    if "--config" in argv:
        return LaunchFacts(flavour="tabbyapi", is_folder=True)
    if _value(argv, "-H") and "--alias" not in argv:
        return LaunchFacts(bind_address=_value(argv, "-H"))
    if "-m" in argv:
        return _of_llama_server(argv)
    return LaunchFacts()


def _of_vllm(argv: Sequence[str]) -> LaunchFacts:
    return LaunchFacts(
        flavour="vllm",
        model_path=argv[2],
        is_folder=True,
        alias=_value(argv, "--served-model-name"),
        slots=_number(_value(argv, "--max-num-seqs")),
    )


def _of_llama_server(argv: Sequence[str]) -> LaunchFacts:
    # Only one of the two spellings is in a command.
    told = (*_list(argv, "--device"), *_list(argv, "-dev"), *_list(argv, "-devd"))
    return LaunchFacts(
        flavour="ik_llama.cpp" if _value(argv, "--webui") == "none" else "llama.cpp",
        model_path=_value(argv, "-m"),
        draft_path=_value(argv, "-md"),
        alias=_value(argv, "--alias"),
        kind=_kind(argv),
        slots=_number(_value(argv, "-np")),
        slots_folder=_value(argv, "--slot-save-path"),
        rpc_endpoints=_list(argv, "--rpc"),
        devices=tuple(dict.fromkeys(name for name in told if name != "none")),
        split_mode=_value(argv, "-sm"),
        drafts="--spec-type" in argv,
    )


def _value(argv: Sequence[str], flag: str) -> str:
    return next(
        (value for name, value in zip(argv, argv[1:], strict=False) if name == flag), ""
    )


def _list(argv: Sequence[str], flag: str) -> tuple[str, ...]:
    return tuple(part for part in _value(argv, flag).split(",") if part)


def _number(text: str) -> int:
    if text.isdigit():
        return int(text)
    return 1


def _kind(argv: Sequence[str]) -> str:
    if {"--reranking", "--rerank"} & set(argv):
        return Kind.RERANKER.value
    if {"--embeddings", "--embedding"} & set(argv):
        return Kind.EMBEDDING.value
    return Kind.TEXT.value
