"""Finds in an engine's log the line that tells why it ended, and says it in words.

Wording as llama-server and ggml-rpc-server print it, seen on the real binary; CUDA's in its source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# "0.00.123.456 E load_model: text"; argument errors come without the prefix.
_ERROR_LINE = re.compile(
    r"^(?:\d+\.\d\d\.\d{3}\.\d{3} )?E |^error\b|^E cannot start|terminate"
    r" called|what\(\):|GGML_ASSERT|GGML_ABORT"
)
# They follow the cause or stand for any of them, so they tell nothing.
_VAGUE = re.compile(
    r"exiting due to model loading error|failed to load model|error loading model$|failed to fit"
    r" params"
    r"|encountered an error while trying to fit|unable to load model|failed to create context"
    r"|failed to initialize the context:? *$"
)


@dataclass(frozen=True)
class Cause:
    """`permanent`: starting again without a change cannot help."""

    code: str
    text: str
    fix: str
    line: str = ""
    permanent: bool = False


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    code: str
    text: str
    fix: str
    permanent: bool = True


def _rule(
    pattern: str, code: str, text: str, fix: str, *, permanent: bool = True
) -> _Rule:
    return _Rule(re.compile(pattern, re.I), code, text, fix, permanent)


RULES = (
    _rule(
        r"couldn't bind HTTP server socket, hostname: (?P<what>\S+\.sock)",
        "socket_taken",
        "The engine could not listen on its socket {what}.",
        "It is tried again.",
        permanent=False,
    ),
    _rule(
        r"couldn't bind HTTP server socket.*port: (?P<what>\d+)|Failed to create server socket",
        "port_taken",
        "The port {what} is taken by another program.",
        "Another port is tried.",
        permanent=False,
    ),
    _rule(
        r"failed to open GGUF file '(?P<what>[^']*)'",
        "model_missing",
        "The model file {what} cannot be opened.",
        "Put it back, or choose another model.",
    ),
    _rule(
        r"invalid magic characters|failed to read magic",
        "gguf_not_gguf",
        "The model file is not a GGUF.",
        "Download or copy the file again.",
    ),
    _rule(
        r"failed to read key-value pairs|failed to read tensor info|not within the file bounds",
        "gguf_truncated",
        "The model file is truncated or damaged.",
        "Download or copy the file again.",
    ),
    _rule(
        r"mismatch between text model \(n_embd = \d+\) and mmproj",
        "projector_mismatch",
        "The projector was made for models of another width.",
        "Choose the projector that was published with the model.",
    ),
    _rule(
        r"Failed to load CLIP model from (?P<what>.*\S)",
        "projector_unreadable",
        "The engine cannot load the projector {what}.",
        "Download or copy the file again, or use a newer build of the engine.",
    ),
    _rule(
        r"unknown model architecture: '(?P<what>[^']*)'",
        "arch_unknown",
        "This engine does not know the architecture {what}.",
        "Use a newer build of the engine.",
    ),
    _rule(
        r"not implemented for architecture '(?P<what>[^']*)'",
        "arch_refused",
        "The engine has no such split for the architecture {what}.",
        "Choose another strategy.",
    ),
    _rule(
        r"not possible to use split mode 'graph' with less than 2 devices",
        "needs_two_devices",
        "Graph split needs two cards or more, and the engine sees fewer.",
        "Choose two CUDA cards, or another strategy.",
    ),
    _rule(
        r"Free memory on device .*less than desired GPU memory utilization"
        r"|Available memory on node .*is less than|CUDA out of memory|OutOfMemoryError",
        "out_of_memory",
        "The memory of a device does not suffice.",
        "Lower the context, or stop another deployment.",
    ),
    _rule(
        r"invalid literal for int\(\) with base 10: '(?P<what>(?:GPU|MIG)-[^']*)'",
        "device_unknown",
        "This version of the engine takes cards by number, not as {what}.",
        "Use a newer version of it.",
    ),
    _rule(
        r"Port (?P<what>\d+) is currently in use\. Switching to",
        "port_taken",
        "The port {what} is taken by another program.",
        "Another port is tried.",
        permanent=False,
    ),
    _rule(
        r"the argument has been removed\. (?P<what>.*)",
        "flag_removed",
        "The engine no longer has a flag that was given: {what}",
        "Take the flag out.",
    ),
    _rule(
        r"(?:invalid|unknown) argument: (?P<what>\S+)",
        "flag_unknown",
        "The engine does not know the flag {what}.",
        "Take the flag out of the extra arguments.",
    ),
    _rule(
        r"invalid device: (?P<what>\S+)",
        "device_unknown",
        "The engine does not have the device {what}.",
        "Choose another device.",
    ),
    _rule(
        r"error while handling argument \"(?P<what>[^\"]+)\""
        r"|invalid parameter for argument: (?P<other>\S+)",
        "flag_value",
        "The engine refuses the value of {what}.",
        "Change the setting.",
    ),
    _rule(
        r"quantized V cache requires flash_attn",
        "kv_needs_flash_attention",
        "A quantised V cache needs flash attention.",
        "Switch flash attention on.",
    ),
    _rule(
        r"cudaMalloc failed: out of memory|ErrorOutOfDeviceMemory"
        r"|failed to allocate \S+ buffer|unable to allocate"
        r"|failed to allocate (?:compute )?buffers?|not enough (?:VRAM|memory)",
        "out_of_memory",
        "The memory of a device does not suffice.",
        "Lower the context or the layers on the device, or stop another deployment.",
    ),
    _rule(
        r"mmap failed: Cannot allocate memory|insufficient memory \(attempted to allocate"
        r"|std::bad_alloc",
        "out_of_memory",
        "Main memory does not suffice.",
        "Lower the context, stop another deployment, or raise the memory limit of this user.",
    ),
    _rule(
        r"Failed to connect to (?P<what>\S+)",
        "device_unreachable",
        "The server of an RPC device cannot be reached at {what}.",
        "Look at the host that offers the device and at what lies between; it is tried again.",
        permanent=False,
    ),
    _rule(
        r"RPC server version mismatch:? ?(?P<what>\S*)",
        "device_version",
        "The server of an RPC device speaks another version of the protocol {what}.",
        "Install the same build of llama.cpp on both hosts.",
    ),
    _rule(
        r"Remote RPC server crashed",
        "device_lost",
        "The server behind an RPC device went away.",
        "It is started again.",
        permanent=False,
    ),
    _rule(
        r"CUDA error|device lost|ErrorDeviceLost",
        "device_error",
        "A GPU reported an error.",
        "Look at the card on the Rig page.",
        permanent=False,
    ),
    _rule(
        r"^E cannot start (?P<what>.*"
        r"(?:Resource temporarily unavailable|Cannot allocate memory|Text file busy))",
        "no_process",
        "The machine could not make the process: {what}.",
        "It is tried again.",
        permanent=False,
    ),
    _rule(
        r"^E cannot start (?P<what>.*)",
        "engine_missing",
        "The engine cannot be started: {what}.",
        "Install it again, or choose another engine.",
    ),
)
# Told by engines that go on all the same, with less than the plan says.
NOTICES = (
    _rule(
        r"Split mode 'graph' (?:is not supported for|requested for Gemma4-assistant)",
        "fell_back_to_layer_split",
        "The engine knows no graph split for this model and runs it as a layer split.",
        "It is right but not faster; choose layer split to have it planned as what it is.",
        permanent=False,
    ),
    _rule(
        r"^(?!none )\S+ backend not available\.|Failed to connect to \S+",
        "device_not_used",
        "The engine could not use a device and goes on without it.",
        "Look at its log and at the Rig page.",
        permanent=False,
    ),
)
_MAX_LINE = 500
# What comes before other lines that follow from it, best first: a server that is not understood was
# not connected to, and a device that was not found is called invalid.
_DECISIVE = (
    re.compile(r"RPC server version mismatch"),
    re.compile(r"Failed to connect to \S+"),
)
CRASHED_BY_SIGNAL = "crashed"
SIGNAL_NAMES = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    15: "SIGTERM",
}


def is_error(line: str) -> bool:
    return bool(_ERROR_LINE.search(line))


def telling_line(lines: Sequence[str]) -> str:
    """The line a person would point at: the last one a rule knows, else the last specific error."""
    known = [line for line in lines if _match(line)]
    errors = [line for line in lines if is_error(line) and not _VAGUE.search(line)]
    chosen = (
        next(
            (
                found
                for rule in _DECISIVE
                if (found := [line for line in known if rule.search(line)])
            ),
            [],
        )
        or known
        or errors
        or [line for line in lines if is_error(line)]
        or [line for line in lines if line.strip()]
        or [""]
    )[-1]
    return chosen.strip()[:_MAX_LINE]


def notice(lines: Sequence[str]) -> Cause | None:
    """What an engine that serves does otherwise than it was told; the first such line of its log
    tells."""
    for line in lines:
        found = _match(line, NOTICES)
        if found:
            rule, _ = found
            return Cause(rule.code, rule.text, rule.fix, line.strip()[:_MAX_LINE])
    return None


def why_no_drafting(lines: Sequence[str]) -> str:
    """The line in which an engine says that a draft does not suit; empty when there is none."""
    return next(
        (line.strip() for line in lines if "vocabs are not compatible" in line), ""
    )


def _match(line: str, rules: Sequence[_Rule] = RULES) -> tuple[_Rule, str] | None:
    for rule in rules:
        found = rule.pattern.search(line)
        if found:
            return rule, next(
                (value for value in found.groupdict().values() if value), ""
            ).strip()
    return None


UNREACHABLE = next(rule for rule in RULES if rule.code == "device_unreachable")


def _cause(rule: _Rule, what: str, line: str) -> Cause:
    text = " ".join(rule.text.format(what=what).split())
    return Cause(rule.code, text, rule.fix, line, rule.permanent)


def _missing_endpoint(rule: _Rule, what: str, rpc_endpoints: Sequence[str]) -> str:
    """The server without which the engine lacks a device; empty where it is not that.

    It says which server it cannot reach in a thread of its own, which may end before the line is
    written; that it has no such device it always says.
    """
    number = what.removeprefix("RPC")
    if rule.code != "device_unknown" or not what.startswith("RPC"):
        return ""
    if not number.isdecimal() or int(number) >= len(rpc_endpoints):
        return ""
    return rpc_endpoints[int(number)]


def cause_of_exit(
    lines: Sequence[str], exit_code: int | None, rpc_endpoints: Sequence[str] = ()
) -> Cause:
    """Why the engine ended, from its log since the start and its exit code (negative: a signal).

    `rpc_endpoints`: the servers that it was told to use; the first one is its device RPC0.
    """
    line = telling_line(lines)
    matched = _match(line)
    if matched:
        rule, what = matched
        endpoint = _missing_endpoint(rule, what, rpc_endpoints)
        if endpoint:
            return _cause(UNREACHABLE, endpoint, line)
        return _cause(rule, what, line)
    if exit_code == -9:
        text = (
            "The engine was killed (SIGKILL): most often the kernel does that when main memory runs"
            " out."
        )
        return Cause("killed", text, "Look at the host's memory on the Rig page.", line)
    if exit_code == -4:
        text = (
            "The engine uses instructions that this processor does not have (SIGILL)."
        )
        return Cause(
            "wrong_processor",
            text,
            "Install a build for this processor.",
            line,
            permanent=True,
        )
    if exit_code is not None and exit_code < 0:
        name = SIGNAL_NAMES.get(-exit_code, f"signal {-exit_code}")
        return Cause(
            CRASHED_BY_SIGNAL,
            f"The engine crashed ({name}).",
            "The log tells more.",
            line,
        )
    if exit_code is None:
        ended = "and its exit code is not known"
    else:
        ended = f"with exit code {exit_code}"
    return Cause(
        "exited", f"The engine ended by itself {ended}.", "The log tells more.", line
    )
