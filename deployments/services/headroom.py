"""How much more a layout could take, and the smallest change with which one that does not fit
would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from deployments.advice.layouts import Layout
from deployments.planning.memory.fit import PLACEMENT_SETTINGS
from deployments.planning.plan import Severity
from deployments.planning.settings import AUTO, LARGEST_CONTEXT
from deployments.services.layout_plans import Bench, Planned, planned_on
from deployments.services.plans import model_facts, shape_of
from deployments.states import StrategyName
from deployments.strategies import get_strategy
from deployments.strategies.base import DOES_NOT_FIT
from omni.errors import OmniError

# Contexts are looked for in multiples of it.
STEP = 1024
# A shorter one is not worth proposing.
LEAST_CONTEXT = 2048
MOST_PLANS = 10
SMALL_CACHE: Mapping[str, int | str] = {"kv_cache_k": "q8_0", "kv_cache_v": "q8_0"}

Changes = Mapping[str, int | str]


@dataclass(frozen=True)
class Nearest:
    """What to change in a layout that does not fit: settings, and the strategy where that is
    another one; `planned` is what comes of it."""

    text: str
    settings: Changes
    strategy: str
    planned: Planned


def longest_context(planned: Planned, bench: Bench) -> int | None:
    """The most tokens that each user could have with the same strategy, devices, users and cache.

    Layers stay where they are. None where not even the shortest context fits, or nothing is known
    of the model.
    """
    if planned.error:
        return None
    open_keys = set(PLACEMENT_SETTINGS) - {"gpu_layers"}
    kept = {k: v for k, v in planned.settings.items() if k not in open_keys}
    top = _trained_for(planned)
    users = _users(planned)
    now = _context(planned) if planned.can_serve else 0
    if now >= top:
        return top

    def serves(tokens: int) -> bool:
        settings = {**kept, "context": tokens * users}
        return planned_on(bench, replace(planned, settings=settings)).can_serve

    return max(_longest(serves, now, top), now) or None


def nearest(planned: Planned, bench: Bench) -> Nearest | None:
    """The smallest change with which a layout fits that does not; None where there is none, or
    where something else than memory stands against it."""
    if not _only_memory_is_short(planned):
        return None
    # Where layers and experts go was chosen for what does not fit.
    settings = {
        k: v for k, v in planned.settings.items() if k not in PLACEMENT_SETTINGS
    }
    wanted = replace(planned, settings=settings)
    for changed, what in _tries(wanted, bench):
        made = planned_on(bench, changed)
        if made.can_serve:
            changes = {
                k: v for k, v in changed.settings.items() if settings.get(k) != v
            }
            return Nearest(f"Fits {what}", changes, changed.layout.strategy, made)
    return None


def _only_memory_is_short(planned: Planned) -> bool:
    if planned.plan is None or planned.can_serve:
        return False
    reasons = planned.plan.reasons
    errors = {each.code for each in reasons if each.severity == Severity.ERROR}
    return errors == {DOES_NOT_FIT}


# --- what is tried, the smallest change first -----------------------------------------------------
def _tries(wanted: Planned, bench: Bench) -> Iterator[tuple[Planned, str]]:
    """Layouts, and how they differ from the one that is wanted."""
    users = _users(wanted)
    small = _with(wanted, _smaller_cache(wanted))
    in_cache = "the KV cache in q8_0"
    least = _with(small, {"context": LEAST_CONTEXT, "parallel": 1})
    if planned_on(bench, least).can_serve:
        if small is not wanted:
            yield small, f"with {in_cache}"
        yield from _shorter(wanted, bench, users)
        yield from _fewer(wanted, bench)
        if small is not wanted:
            yield from _shorter(small, bench, users, f" and {in_cache}")
        if users > 1:
            yield from _shorter(wanted, bench, 1)
            if small is not wanted:
                yield from _shorter(small, bench, 1, f" and {in_cache}")
    if sibling := _with_experts_on_host(wanted):
        title = get_strategy(sibling.layout.strategy).title.lower()
        yield sibling, f"with {title}"


def _smaller_cache(wanted: Planned) -> Changes:
    kinds = {wanted.settings.get(key, "f16") for key in SMALL_CACHE}
    if kinds <= {"f16", "bf16", "f32", AUTO}:
        return SMALL_CACHE
    return {}


def _shorter(
    wanted: Planned, bench: Bench, users: int, more: str = ""
) -> Iterator[tuple[Planned, str]]:
    def changed(tokens: int) -> Planned:
        return _with(wanted, {"context": tokens * users, "parallel": users})

    context = _context(wanted)
    tokens = _longest(
        lambda tokens: planned_on(bench, changed(tokens)).can_serve, 0, context - 1
    )
    if tokens < LEAST_CONTEXT:
        return
    whose = f" for each of {users} users" if users > 1 else ""
    if users != _users(wanted):
        whose = " for one user"
    yield changed(tokens), f"with a context of {tokens:,}{whose}{more}"


def _fewer(wanted: Planned, bench: Bench) -> Iterator[tuple[Planned, str]]:
    """As many users as fit, each with the context that is wanted."""

    def changed(users: int) -> Planned:
        return _with(wanted, {"context": _context(wanted) * users, "parallel": users})

    low, high = 0, _users(wanted)
    while high - low > 1:
        middle = (low + high) // 2
        fits = planned_on(bench, changed(middle)).can_serve
        low, high = (middle, high) if fits else (low, middle)
    if low:
        yield changed(low), f"for {low} users" if low > 1 else "for one user"


def _with_experts_on_host(wanted: Planned) -> Planned | None:
    """The same model on the same cards, with experts in the host's memory; None where it has
    none, or has them there."""
    strategy = StrategyName.EXPERT_OFFLOAD
    cards = [
        name
        for model, names in wanted.members.values()
        if model.name == wanted.model.name
        for name in names
    ]
    if wanted.layout.strategy == strategy or not wanted.model.facts.get("n_expert"):
        return None
    cards = list(dict.fromkeys(cards))
    return replace(
        wanted,
        layout=Layout(strategy, {"model": tuple(cards)}),
        members={"model": (wanted.model, cards)},
    )


# --- helpers --------------------------------------------------------------------------------------
def _longest(serves: Callable[[int], bool], low: int, top: int) -> int:
    """The most tokens up to `top`, in whole steps, that serve; `low` where no more do."""
    fits = low // STEP
    too_many = top // STEP + 1
    if too_many - fits <= 1:
        return low
    if serves((too_many - 1) * STEP):
        return (too_many - 1) * STEP
    too_many -= 1
    for _ in range(MOST_PLANS - 1):
        if too_many - fits <= 1:
            break
        middle = (fits + too_many) // 2
        if serves(middle * STEP):
            fits = middle
        else:
            too_many = middle
    return max(fits * STEP, low)


def _trained_for(planned: Planned) -> int:
    """Tokens; as many as can be asked for where the file does not say."""
    most = LARGEST_CONTEXT // _users(planned)
    try:
        trained = model_facts(planned.model).n_ctx_train
        trained = trained or shape_of(planned.model).n_ctx_train
    except OmniError:
        return 0
    return min(trained or most, most)


def _users(planned: Planned) -> int:
    return max(int(planned.settings.get("parallel", 1)), 1)


def _context(planned: Planned) -> int:
    """Of each user."""
    return int(planned.settings["context"]) // _users(planned)


def _with(planned: Planned, changes: Changes) -> Planned:
    if not changes:
        return planned
    return replace(planned, settings={**planned.settings, **changes})
