"""What engines that compute with PyTorch have in common: CUDA cards alone, whole models, folders of
safetensors."""

from __future__ import annotations

from typing import ClassVar

from deployments.engines.base import EngineFlavour, kind_reasons
from deployments.planning.memory.fit import DEFAULT_MARGIN_BYTES
from deployments.planning.plan import DeviceFacts, PlanRequest, Reason, Severity
from deployments.planning.settings import ALL, AUTO

# Told by strategies of llama.cpp's own limits.
LLAMA_CPP_ONLY = frozenset(
    {
        "arch_refused",
        "kv_heads_lost",
        "kv_heads_uneven",
        "even_split_wastes",
        "needs_flash_attention",
        "partial_offload",
    }
)


class CudaOnly(EngineFlavour):
    # Its name in sentences.
    called: ClassVar[str]
    folder_kind: ClassVar[str]
    strategies: ClassVar[frozenset[str]]
    # How much memory it takes beside what a plan adds up.
    allots: ClassVar[str]
    devices_args: ClassVar[tuple[str, ...]] = ()
    reads_gguf: ClassVar[bool] = False
    # Imports of PyTorch from a cold disk.
    slow_start_s: ClassVar[float] = 60.0
    slow_load_s: ClassVar[float] = 600.0

    def answers(self, reason: Reason) -> bool:
        return reason.code not in LLAMA_CPP_ONLY

    def reasons(self, request: PlanRequest) -> tuple[Reason, ...]:
        if request.strategy not in self.strategies:
            able = ", ".join(sorted(self.strategies))
            text = f"{self.called} cannot do {request.strategy}; it can do {able}."
            return (
                _error(
                    "strategy_not_for_engine",
                    text,
                    "Choose another strategy, or a llama.cpp engine.",
                ),
            )
        reasons = list(kind_reasons(request))
        for member in request.members.values():
            if not member.shape.is_folder:
                text = f"{member.name} is a GGUF file, and {self.called} loads {self.folder_kind}."
                reasons.append(
                    _error("gguf_for_other_engine", text, "Use llama.cpp for it.")
                )
            elif fix := self.unreadable(member.facts.quant):
                text = f"{member.name} is {member.facts.quant}, which {self.called} does not read."
                reasons.append(_error("format_for_other_engine", text, fix))
            kind = self.device_kind(request.engine.build)
            others = sorted(
                {device.name for device in member.devices if device.kind != kind}
            )
            if others:
                reasons.append(self._wrong_device(kind, others))
        if request.settings.get("gpu_layers", AUTO) not in (AUTO, ALL):
            text = f"{self.called} puts every layer on the cards."
            reasons.append(
                _error(
                    "partial_offload", text, "Leave gpu_layers at all.", gpu_layers=ALL
                )
            )
        text = f"Weights are those of the files, working memory is an estimate. {self.allots}"
        return (
            *reasons,
            *self.more_reasons(request),
            Reason("bytes_of_folder", Severity.INFO, text),
        )

    def unreadable(self, quant: str) -> str:
        """What to do with weights in a format it does not read; '' for one it reads."""
        return ""

    def device_kind(self, build: str) -> str:
        return "cuda"

    def _wrong_device(self, kind: str, others: list[str]) -> Reason:
        if kind == "cpu":
            text = (
                f"This build of {self.called} computes on the CPU alone; {', '.join(others)}"
                f" {_are(others)} not that."
            )
            return _error("needs_cpu", text, "Choose the CPU, or another engine.")
        text = f"{self.called} computes on CUDA cards; {', '.join(others)} {_are(others)} not."
        return _error(
            "needs_cuda", text, "Choose CUDA cards only, or a llama.cpp engine."
        )

    def more_reasons(self, request: PlanRequest) -> list[Reason]:
        return []


def cards_of(request: PlanRequest) -> tuple[DeviceFacts, ...]:
    """The CUDA cards of the serving member."""
    member = next(iter(request.members.values()))
    return tuple(device for device in member.devices if device.kind == "cuda")


def visible(cards: tuple[DeviceFacts, ...]) -> dict[str, str]:
    """By UUID, as an index changes with the driver's order."""
    env = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if all(card.gpu_uuid for card in cards):
        env["CUDA_VISIBLE_DEVICES"] = ",".join(card.gpu_uuid for card in cards)
    return env


def room_bytes(card: DeviceFacts) -> int:
    """What may be taken of it; 0 where its size is not known."""
    known = card.total_bytes if card.free_bytes is None else card.free_bytes
    return max((known or 0) - DEFAULT_MARGIN_BYTES, 0)


def _are(names: list[str]) -> str:
    if len(names) == 1:
        return "is"
    return "are"


def _error(code: str, text: str, fix: str, **changes: int | str) -> Reason:
    return Reason(code, Severity.ERROR, text, fix, changes)
