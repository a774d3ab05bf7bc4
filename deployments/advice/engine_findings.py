"""Engines that were built for something else than the cards that are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpus.findings import Evidence, Finding
from gpus.sample import CardIdentity

# CUDA's major version → the first branch of the driver that it runs on (NVIDIA, "CUDA
# compatibility", minor version compatibility).
FIRST_BRANCH = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True)
class EngineSeen:
    """An engine with the devices it lists; `machine` and `portable` are cards, as 10 × compute
    capability, that it has code for, or code that the driver can compile."""

    name: str
    devices: tuple[str, ...] = ()
    machine: frozenset[int] = frozenset()
    portable: frozenset[int] = frozenset()
    runtime: int | None = None

    def _lists(self, back_end: str) -> bool:
        return any(device.startswith(back_end) for device in self.devices)

    @property
    def has_cuda(self) -> bool:
        return bool(self.machine or self.portable) or self._lists("CUDA")

    @property
    def has_vulkan(self) -> bool:
        return self._lists("Vulkan")


def capability(card: CardIdentity) -> int | None:
    """12.0 → 120; None where it is not known."""
    major, _, minor = card.compute_capability.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return None
    return int(major) * 10 + int(minor)


def runs_on(engine: EngineSeen, card: int) -> bool:
    """Code for a card runs on those of its own generation with a higher number, too."""
    return any(built // 10 == card // 10 and built <= card for built in engine.machine)


def compiles_for(engine: EngineSeen, card: int) -> bool:
    return any(built <= card for built in engine.portable)


def _without_code(
    engine: EngineSeen, cards: Sequence[CardIdentity], _branch: int | None
) -> Iterator[Finding]:
    if not (engine.machine or engine.portable):
        return
    for card in cards:
        number = capability(card)
        if number is None or runs_on(engine, number):
            continue
        compiles = compiles_for(engine, number)
        if compiles:
            text = (
                f"{engine.name} has no code for it (sm_{number}): the driver compiles it"
                " at the first start, which takes minutes and runs slower than code"
                " that was made for the card."
            )
        else:
            text = (
                f"{engine.name} has no code for it (sm_{number}) and cannot run on it."
            )
        yield Finding(
            "engine_without_code",
            "info" if compiles else "error",
            f"{engine.name} was not built for {card.shown_name}",
            text,
            f"Install a build with CUDA architecture {number}:"
            f" -DCMAKE_CUDA_ARCHITECTURES={number}, with a toolkit that knows it.",
            "It was compiled for other cards.",
            f"{engine.name} {card.uuid}",
            (
                Evidence("Code for", _listed("sm_", engine.machine)),
                Evidence("Can be compiled from", _listed("compute_", engine.portable)),
                Evidence("Card", f"sm_{number}"),
            ),
        )


def _listed(prefix: str, cards: Collection[int]) -> str:
    return ", ".join(f"{prefix}{card}" for card in sorted(cards)) or "none"


def _newer_than_driver(
    engine: EngineSeen, cards: Sequence[CardIdentity], branch: int | None
) -> Iterator[Finding]:
    first = FIRST_BRANCH.get(engine.runtime or 0)
    if not (cards and first and branch) or branch >= first:
        return
    yield Finding(
        "driver_old_for_engine",
        "error",
        f"{engine.name} needs a newer driver",
        f"It is built with CUDA {engine.runtime}, which needs driver {first} or newer;"
        f" here is {branch}.",
        "Install a newer driver, or a build with an older CUDA.",
        "CUDA's major version and the driver's branch go together.",
        engine.name,
        (
            Evidence("CUDA of the engine", str(engine.runtime)),
            Evidence("Driver's branch", str(branch)),
        ),
    )


def _other_back_end(
    engine: EngineSeen, cards: Sequence[CardIdentity], _branch: int | None
) -> Iterator[Finding]:
    if not cards or engine.has_cuda:
        return
    if engine.has_vulkan:
        said = "uses NVIDIA's cards by Vulkan: it reads prompts slower than by CUDA."
    else:
        said = "has no back end for NVIDIA's cards: it computes on the processor."
    yield Finding(
        "engine_other_back_end",
        "info",
        f"{engine.name} is built without CUDA",
        f"{engine.name} {said}",
        "Install a build with CUDA, name it in OMNI_LLAMA_SERVER or OMNI_ENGINES, and"
        " scan.",
        "It was compiled for another back end.",
        engine.name,
        (Evidence("Devices it lists", ", ".join(engine.devices) or "none"),),
    )


Rule = Callable[[EngineSeen, Sequence[CardIdentity], int | None], Iterable[Finding]]
ENGINE_RULES: tuple[Rule, ...] = (_without_code, _newer_than_driver)


def engine_findings(
    engines: Iterable[EngineSeen], cards: Sequence[CardIdentity], driver_version: str
) -> list[Finding]:
    """`cards` are those of NVIDIA's that are there."""
    head = driver_version.partition(".")[0]
    branch = int(head) if head.isdigit() else None
    seen = tuple(engines)
    rules = ENGINE_RULES
    if not any(engine.has_cuda for engine in seen):
        # Beside one that is right for the cards, others may be what they are.
        rules = (*ENGINE_RULES, _other_back_end)
    return [
        finding
        for engine in seen
        for rule in rules
        for finding in rule(engine, cards, branch)
    ]
