"""Generated rigs: whatever can stand in a rig file, and ones whose models, engines and devices
exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from deployments.advice.purposes import why_no_purpose
from deployments.engines import FLAVOURS
from deployments.planning.settings import SETTINGS, Setting, conflicts
from deployments.rig.words import Rig, RigDeployment, RigEngine, RigModel, RigRoute
from deployments.strategies import STRATEGIES

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
PATHS = st.from_regex(r"/[a-z0-9 .:#'\"é-]{1,30}", fullmatch=True)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "),
    max_size=60,
)
ARGS = st.sampled_from(
    [
        "--top-k 5",
        "--temp=0.5",
        "--swa-full",
        "--cache-reuse 256",
        "--keep -1",
        "--numa isolate",
    ]
)

PURPOSES = NAMES.filter(lambda name: not why_no_purpose(name))


def _values(setting: Setting) -> st.SearchStrategy[int | str]:
    kinds: list[st.SearchStrategy[Any]] = (
        [st.sampled_from(setting.words)] if setting.words else []
    )
    kinds += [st.integers(setting.low, setting.high)] if setting.low is not None else []
    kinds += [st.sampled_from(["3,1", "1,1", "0.5,0.25"])] if setting.is_list else []
    return st.one_of(kinds)


def settings(
    keys: Sequence[str] = tuple(SETTINGS),
) -> st.SearchStrategy[dict[str, int | str]]:
    """Valid ones that do not exclude each other."""
    optional = {key: _values(SETTINGS[key]) for key in keys}
    return st.fixed_dictionaries({}, optional=optional).filter(
        lambda values: not conflicts(values)
    )


@st.composite
def deployments(
    draw: st.DrawFn,
    name: str,
    models: st.SearchStrategy[str],
    devices: Sequence[str],
    keys: Sequence[str],
) -> RigDeployment:
    strategy = STRATEGIES[draw(st.sampled_from(list(STRATEGIES)))]
    roles = [
        r
        for r in strategy.roles
        if r not in strategy.optional_roles or draw(st.booleans())
    ]
    chosen = st.lists(st.sampled_from(devices), min_size=1, max_size=3, unique=True)
    return RigDeployment(
        name,
        strategy.name,
        draw(st.sampled_from(["", "llama.cpp", "mine"])),
        {role: draw(models) for role in roles},
        {role: tuple(draw(chosen)) for role in roles},
        draw(settings(keys)),
        tuple(draw(st.lists(ARGS, max_size=2, unique=True))),
        tuple(draw(st.lists(PURPOSES, max_size=3, unique=True))),
    )


@st.composite
def rigs(draw: st.DrawFn) -> Rig:
    """Anything a file can say; whether what it names exists is not looked at."""
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    paths = draw(st.lists(PATHS, min_size=len(names), max_size=len(names), unique=True))
    flavours = st.sampled_from(list(FLAVOURS))
    routes = [
        RigRoute(
            f"r-{n}"[:20], n, draw(TEXTS.filter(lambda t: not t or bool(t.strip())))
        )
        for n in names
    ]
    devices = ("CPU", "CUDA0", "RPC1", "Vulkan0")
    return Rig(
        tuple(
            RigEngine(n, p, draw(flavours)) for n, p in zip(names, paths, strict=True)
        ),
        tuple(RigModel(n, p) for n, p in zip(names, paths, strict=True)),
        tuple(draw(deployments(n, NAMES, devices, tuple(SETTINGS))) for n in names),
        tuple({route.name: route for route in routes}.values()),
    )


@st.composite
def working_rigs(draw: st.DrawFn, engine: str, models: Sequence[str]) -> Rig:
    """Rigs of the one real engine and these real files on a host with CPU, RPC0 and RPC1.

    Settings that not every strategy can be planned with are left out: what is refused changes
    nothing.
    """
    names = draw(
        st.lists(NAMES, min_size=len(models), max_size=len(models), unique=True)
    )
    keys = (
        "context",
        "parallel",
        "flash_attention",
        "batch",
        "threads",
        "load_mode",
        "draft_max",
    )
    places = [f"d-{n}" for n in draw(st.lists(NAMES, max_size=3, unique=True))]
    made = [
        draw(
            deployments(
                place[:60], st.sampled_from(names), ("CPU", "RPC0", "RPC1"), keys
            )
        )
        for place in places
    ]
    led = (
        draw(st.lists(st.sampled_from(places), max_size=2, unique=True))
        if places
        else []
    )
    texts = TEXTS.filter(lambda t: not t or bool(t.strip()))
    return Rig(
        (RigEngine("mine", engine),),
        tuple(RigModel(n, p) for n, p in zip(names, models, strict=True)),
        tuple(made),
        tuple(RigRoute(f"r-{place}"[:60], place, draw(texts)) for place in led),
    )
