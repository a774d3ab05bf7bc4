"""Settings for what somebody wants, chosen so that they fit: the longest context, the most speed,
many users.

Every preset is tried with the memory model (fit.best_fit) on the devices as they are; where a wish
does not fit it is made smaller, and layers go to the host only when nothing else is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.formats.kinds import Kind
from deployments.formats.model_facts import ModelFacts
from deployments.planning.architecture import ModelShape
from deployments.planning.memory.fit import DEFAULT_MARGIN_BYTES, Fit, best_fit
from deployments.planning.memory.kv_types import kv_table
from deployments.planning.memory.settings import (
    MemorySettings,
    memory_settings,
    split_text,
)
from deployments.planning.plan import DeviceFacts
from deployments.planning.settings import ALL, DEFAULT_CONTEXT, SHARES

LEAST_CONTEXT = 2048
SHORT_CONTEXTS = (DEFAULT_CONTEXT, 4096, LEAST_CONTEXT)
BALANCED_CONTEXTS = (32768, 16384, DEFAULT_CONTEXT, 4096)
# Where not all layers fit, a larger wish is worth this part of those that would.
_ENOUGH_LAYERS = 0.9
BALANCED_REQUESTS = 2
USERS = (16, 8, 4, 2)
PER_USER = DEFAULT_CONTEXT
FAST_UBATCH = 2048
UNTRAINED = 4096  # for a model that does not say its context

Settings = Mapping[str, int | str]


@dataclass(frozen=True)
class Preset:
    """`settings` has keys of planning.settings only, those that differ from the defaults by intent
    included.

    `fits` False: nothing smaller was left to try; the settings are the smallest, and `fit` says
    what is missing.
    """

    name: str
    title: str
    text: str
    cost: str
    settings: Settings
    fits: bool
    fit: Fit = field(repr=False)


@dataclass(frozen=True)
class _Model:
    shape: ModelShape
    facts: ModelFacts
    devices: tuple[DeviceFacts, ...]
    margin_bytes: int

    @property
    def n_ctx_train(self) -> int:
        return self.facts.n_ctx_train or self.shape.n_ctx_train or UNTRAINED

    @property
    def has_cards(self) -> bool:
        return any(device.kind != "cpu" for device in self.devices)

    def fitted(self, settings: Settings, *, find_context: bool = False) -> Fit:
        # Presets are for every strategy, and only expert offload moves experts.
        fixed = frozenset({"n_cpu_moe"})
        chosen = self.memory(settings)
        return best_fit(
            self.shape,
            self.devices,
            chosen,
            self.margin_bytes,
            fixed,
            find_context=find_context,
        )

    def memory(self, settings: Settings) -> MemorySettings:
        return memory_settings(settings, int(settings["context"]))

    def kv_types(self) -> tuple[str, ...]:
        """Types worth trying, best quality first."""
        usable = {
            row.type
            for row in kv_table(self.shape, MemorySettings(), 0)
            if row.is_usable
        }
        return tuple(name for name in ("f16", "q8_0") if name in usable)


@dataclass(frozen=True)
class _Wish:
    name: str
    title: str
    text: str
    cost: str
    choose: Callable[[_Model], tuple[Settings, Fit]]


# --- choosing -------------------------------------------------------------------------------------
def _kv(name: str) -> dict[str, int | str]:
    """Settings of a cache type; quantised values need flash attention."""
    quantised: dict[str, int | str] = {"flash_attention": "on"} if name != "f16" else {}
    return {"kv_cache_k": name, "kv_cache_v": name} | quantised


def _with_layers(settings: Settings, fit: Fit, model: _Model) -> Settings:
    if not model.has_cards:
        return settings
    placed: Settings = {
        **settings,
        "gpu_layers": ALL if fit.gpu_layers is None else fit.gpu_layers,
    }
    if fit.tensor_split:
        return {**placed, SHARES: split_text(fit.tensor_split)}
    return placed


def _first(model: _Model, candidates: Iterable[Settings]) -> tuple[Settings, Fit]:
    """The first that fits with all layers on the devices; else the first with nearly as many as
    any; else the last."""
    tried = []
    for settings in candidates:
        fit = model.fitted(settings)
        if fit.fits and fit.gpu_layers is None:
            return settings, fit
        tried.append((settings, fit))
    fitting = [each for each in tried if each[1].fits]
    most = max((fit.gpu_layers or 0 for _, fit in fitting), default=0)
    enough = (
        each for each in fitting if (each[1].gpu_layers or 0) >= _ENOUGH_LAYERS * most
    )
    return next(enough, tried[-1])


def _longest(model: _Model) -> tuple[Settings, Fit]:
    """With all layers on the devices: f16 where that holds all the model was trained for, else the
    type that holds most. Where layers have to stay on the host anyway, the context goes first."""
    least = min(LEAST_CONTEXT, model.n_ctx_train)
    found: list[Settings] = []
    for name in model.kv_types():
        settings: Settings = {"context": least, "parallel": 1, **_kv(name)}
        fit = model.fitted(settings, find_context=True)
        if fit.fits and fit.gpu_layers is None:
            found.append({**settings, "context": fit.max_context})
            if fit.max_context >= model.n_ctx_train:
                break
    if found:
        longest = max(found, key=lambda settings: int(settings["context"]))
        return longest, model.fitted(longest)
    contexts = [max(model.n_ctx_train >> halvings, least) for halvings in range(6)]
    return _first(
        model,
        (
            {"context": c, "parallel": 1, **_kv(n)}
            for c in contexts
            for n in model.kv_types()
        ),
    )


def _fastest(model: _Model) -> tuple[Settings, Fit]:
    def candidates() -> Iterator[Settings]:
        for context in _at_most(SHORT_CONTEXTS, model.n_ctx_train):
            for ubatch in (FAST_UBATCH, 512):
                yield {
                    "context": context,
                    "parallel": 1,
                    "ubatch": ubatch,
                    **_kv("f16"),
                }

    return _first(model, candidates())


def _balanced(model: _Model) -> tuple[Settings, Fit]:
    def candidates() -> Iterator[Settings]:
        for context in _at_most(
            BALANCED_CONTEXTS, model.n_ctx_train * BALANCED_REQUESTS
        ):
            for name in model.kv_types():
                yield {"context": context, "parallel": BALANCED_REQUESTS, **_kv(name)}

    return _first(model, candidates())


def _crowd(model: _Model) -> tuple[Settings, Fit]:
    def candidates() -> Iterator[Settings]:
        for each in _at_most((PER_USER, PER_USER // 2), model.n_ctx_train):
            for users in USERS:
                for name in model.kv_types():
                    yield {"context": each * users, "parallel": users, **_kv(name)}

    return _first(model, candidates())


def _at_most(wanted: Sequence[int], limit: int) -> list[int]:
    """The wishes within the limit, and the limit itself where it cuts some off."""
    return sorted({min(number, max(limit, 256)) for number in wanted}, reverse=True)


_WISHES = (
    _Wish(
        "max_context",
        "Longest context",
        "One conversation with all the context that fits beside the weights.",
        "Requests wait for each other; long contexts are slower, and an 8-bit KV cache loses a"
        " trace of precision.",
        _longest,
    ),
    _Wish(
        "max_speed",
        "Most speed",
        "One request at a time with a short context, a KV cache in f16, and large steps while a"
        " prompt is read.",
        "Conversations end sooner, and requests wait for each other.",
        _fastest,
    ),
    _Wish(
        "balanced",
        "Balanced",
        "Two requests at a time, each with half of a context of up to 32,768 tokens.",
        "Neither the longest context nor the most requests; an 8-bit KV cache where f16 does not"
        " fit.",
        _balanced,
    ),
    _Wish(
        "many_users",
        "Many users",
        "Up to 16 requests at a time, each with up to 8,192 tokens.",
        "Each single answer comes more slowly while others are answered; conversations have to be"
        " short.",
        _crowd,
    ),
)


# --- what is offered ------------------------------------------------------------------------------
def presets(
    shape: ModelShape,
    facts: ModelFacts,
    devices: Sequence[DeviceFacts],
    *,
    margin_bytes: int = DEFAULT_MARGIN_BYTES,
) -> list[Preset]:
    """All presets for this model on these devices, with what each takes; none for what is no model,
    and none for a folder: they are choices of llama.cpp's."""
    if facts.kind != Kind.TEXT or shape.is_folder:
        return []
    model = _Model(shape, facts, tuple(devices), margin_bytes)
    return [_planned(wish, model) for wish in _WISHES]


def _planned(wish: _Wish, model: _Model) -> Preset:
    settings, fit = wish.choose(model)
    settings = _with_layers(settings, fit, model)
    if fit.gpu_layers is None:
        cost = wish.cost
    else:
        cost = f"{wish.cost} Some layers stay on the CPU, which is much slower."
    return Preset(wish.name, wish.title, wish.text, cost, settings, fit.fits, fit)
