"""The engines Omni can run; a new one is a new file and a row here."""

from __future__ import annotations

from deployments.engines.base import EngineFlavour
from deployments.engines.external import EXTERNAL, EXTERNAL_TITLE
from deployments.engines.ik_llama_cpp import IkLlamaCpp
from deployments.engines.llama_cpp import LlamaCpp
from deployments.engines.tabbyapi import TabbyApi
from deployments.engines.vllm import Vllm
from omni.errors import OmniError

FLAVOURS: dict[str, EngineFlavour] = {
    engine.flavour: engine for engine in (LlamaCpp(), IkLlamaCpp(), Vllm(), TabbyApi())
}


def flavour_titles() -> dict[str, str]:
    """Name → what pages call it; also that of the servers that Omni does not start."""
    own = {name: flavour.title for name, flavour in FLAVOURS.items()}
    return {**own, EXTERNAL: EXTERNAL_TITLE}


def get_flavour(name: str) -> EngineFlavour:
    """Raises OmniError (unknown_engine)."""
    if name not in FLAVOURS:
        raise OmniError(
            "unknown_engine",
            f"Omni cannot run {name!r} engines.",
            f"It can: {', '.join(FLAVOURS)}.",
        )
    return FLAVOURS[name]


def reads_gguf(name: str) -> bool:
    """Whether engines of this flavour load GGUF files; those of others that Omni starts load
    folders."""
    return name in FLAVOURS and FLAVOURS[name].reads_gguf


def recognised(help_text: str) -> str:
    """The flavour whose help this is; empty when no flavour claims it."""
    return next(
        (name for name, flavour in FLAVOURS.items() if flavour.recognises(help_text)),
        "",
    )
