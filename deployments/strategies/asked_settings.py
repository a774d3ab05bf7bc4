"""The settings that a deployment asks for, as far as they can be had: context, slots, shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deployments.engines import get_flavour
from deployments.engines.flags import planned_with
from deployments.planning.memory.settings import split_text
from deployments.planning.memory.use import (
    MemorySettings,
    memory_settings,
)
from deployments.planning.plan import (
    DeviceFacts,
    Member,
    PlanRequest,
)
from deployments.planning.repacking import Kernels
from deployments.planning.settings import (
    SETTINGS,
    SMALLEST_CONTEXT,
    context_tokens,
)
from deployments.strategies.base import Strategy
from omni.errors import OmniError


def own_settings(request: PlanRequest, strategy: Strategy) -> dict[str, object]:
    """The settings this strategy looks at; those of others are left out."""
    return {
        key: value
        for key, value in request.settings.items()
        if key in SETTINGS and strategy.looks_at(SETTINGS[key])
    }


def asked_settings(
    request: PlanRequest, member: Member, strategy: Strategy, split_mode: str = "layer"
) -> MemorySettings:
    """What is asked for, before the planner decides what was left to it; of the context what can be
    used."""
    given = own_settings(request, strategy)
    context = usable_context(
        request, member, context_tokens(given, member.facts.n_ctx_train)
    )
    settings = replace(
        memory_settings(given, context),
        split_mode=split_mode,
        kernels=request.engine.kernels,
    )
    if not get_flavour(request.engine.flavour).reads_gguf:
        return settings
    if settings.kernels == Kernels.AMX and member.shape.is_mla:
        # Tiles take no part in products with turned operands, which latent attention has: the
        # engine would abort (ggml-backend.cpp, ggml_backend_sched_split_graph).
        settings = replace(settings, repack=False)
    return planned_with(
        settings, request.extra_args, is_draft=member is request.members.get("draft")
    )


def check_shares(
    shares: tuple[float, ...] | None, cards: Sequence[DeviceFacts]
) -> None:
    """Raises OmniError (bad_setting) for shares that leave every device without a part."""
    if shares and len(cards) > 1 and not any(shares[: len(cards)]):
        names = " and ".join(card.name for card in cards)
        text = f"tensor_split is {split_text(shares)}, which gives nothing to {names}."
        raise OmniError(
            "bad_setting",
            text,
            "Give one of them more than 0, or let the planner choose (auto).",
        )


def usable_context(request: PlanRequest, member: Member, asked: int) -> int:
    """The engine caps each request at what the model was trained for: memory for more would stay
    empty."""
    trained = member.facts.n_ctx_train
    # A draft keeps as much as its target asks for.
    if (
        not trained
        or member is request.members.get("draft")
        or not get_flavour(request.engine.flavour).caps_context
    ):
        return asked
    return max(min(asked, trained * asked_slots(request)), SMALLEST_CONTEXT)


def asked_slots(request: PlanRequest) -> int:
    return int(
        SETTINGS["parallel"].parsed(
            request.settings.get("parallel", SETTINGS["parallel"].default)
        )
    )
