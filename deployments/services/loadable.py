"""Whether an engine of this host can load a model: by the form of its files, its architecture and
its formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deployments.engines import get_flavour
from deployments.engines.probe.archs import lacked
from deployments.models import Engine, Model
from gpus.models import Host

# Databases take so many values in one question, and some more.
MOST_BY_KEY = 1000


def own_engines(engines: Iterable[Engine]) -> list[Engine]:
    """Those that load models of the library; an external server loads none of
    ours."""
    return [
        engine
        for engine in engines
        if engine.state == Engine.State.OK and not engine.is_external
    ]


def why_not(model: Model, engines: Sequence[Engine], *, only_ik: bool) -> str:
    """Why no engine here loads it; empty where one does, or where there is none at all.

    `only_ik`: of its formats.
    """
    fitting = [
        engine
        for engine in engines
        if get_flavour(engine.flavour).reads_gguf != model.is_folder
    ]
    if not fitting:
        return ""
    readers = [
        engine
        for engine in fitting
        if not only_ik or get_flavour(engine.flavour).reads_ik_formats
    ]
    if not readers:
        return "Only ik_llama.cpp reads its number formats, and none is known here."
    if all(lacked(engine, (model.arch,)) for engine in readers):
        return f"No engine here has the architecture {model.arch}. A newer build may have it."
    return ""


def without_engine(models: Sequence[Model], host: Host) -> dict[int, str]:
    """Why no engine of the host loads them, by key, of those that it is so of."""
    engines = own_engines(Engine.objects.filter(host=host))
    for_ik = Model.objects.filter(facts__only_ik=True)
    if len(models) < MOST_BY_KEY:
        for_ik = for_ik.filter(pk__in=[model.pk for model in models])
    only_ik = set(for_ik.values_list("pk", flat=True))
    found = {
        model.pk: why_not(model, engines, only_ik=model.pk in only_ik)
        for model in models
        if model.is_deployable
    }
    return {key: why for key, why in found.items() if why}
