"""What an engine says it took: the buffer sizes in llama-server's log at verbosity 4."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from omni.units import MIB

# "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB"; an RPC buffer names its endpoint in
# brackets.
_BUFFER = re.compile(
    r"(?P<part>\w+): +(?P<name>\S+?)(?:\[(?P<endpoint>[^\]]+)\])? +"
    r"(?P<what>model|KV|RS|compute|output) buffer size = +(?P<mib>[\d.]+) MiB"
)
# "|   - RPC0 (127.0.0.1:50451) | 24105 = 24105 + (  35 =     9 +      10 +      16) + ..."
_PROJECTION = re.compile(
    r"\|   - (?P<name>\S+)(?: \([^|]*\))? +\|[^(|]*\(? *(?P<total>\d+) = +(?P<model>\d+) \+"
    r" +(?P<context>\d+) \+ "
    r"+(?P<compute>\d+)"
)
# "clip_ctx: CLIP using Vulkan0 backend", "load_hparams: model size:         7.51 MiB"; its working
# memory is said in a line like those of the model.
_ENCODER = re.compile(
    r"clip_ctx: CLIP using (?P<name>[^\s\[]+)(?:\[(?P<endpoint>[^\]]+)\])? backend"
)
_ENCODER_WEIGHTS = re.compile(r"load_hparams: model size: +(?P<mib>[\d.]+) MiB")
_ENCODER_BUFFER = "reserve_compute_meta"
HOST_BUFFERS = ("CPU", "CPU_Mapped", "CPU_REPACK", "AMX", "CUDA_Host", "Vulkan_Host")


@dataclass
class Reported:
    """Bytes of one device, each rounded by the engine to 0.01 MiB. `mapped` is part of the model's
    file."""

    weights: float = 0
    mapped: float = 0
    repacked: float = 0
    kv: float = 0
    compute: float = 0
    output: float = 0
    projector: float = 0

    @property
    def total(self) -> float:
        return (
            self.weights
            + self.mapped
            + self.repacked
            + self.kv
            + self.compute
            + self.output
            + self.projector
        )


@dataclass(frozen=True)
class Projected:
    """The engine's own estimate before it allocates, in whole MiB."""

    model: int
    context: int
    compute: int


@dataclass
class EngineMemory:
    """By device, the host as "CPU"."""

    devices: dict[str, Reported] = field(default_factory=dict)
    projected: dict[str, Projected] = field(default_factory=dict)


def reported_memory(
    lines: Iterable[str], endpoints: Mapping[str, str] | None = None
) -> EngineMemory:
    """Reads one model's load.

    `endpoints`: "host:port" → name of the RPC device, as every one calls itself RPC0.
    """
    found = EngineMemory()
    # Compute buffers of the contexts before the present one: a model that drafts for itself has
    # two.
    before: dict[str, float] = {}
    encoder = _Encoder(endpoints or {})
    for line in lines:
        match = _BUFFER.search(line)
        if encoder.reads(line, match, found):
            continue
        if match:
            if match["what"] == "output":
                before = {name: use.compute for name, use in found.devices.items()}
            _add(found, match, endpoints or {}, before)
        elif (match := _PROJECTION.search(line)) and not any(
            d.compute for d in found.devices.values()
        ):
            name = "CPU" if match["name"] == "Host" else match["name"]
            found.projected[name] = Projected(
                int(match["model"]), int(match["context"]), int(match["compute"])
            )
    return found


def _device(match: re.Match[str], endpoints: Mapping[str, str]) -> str:
    """Under Omni's name."""
    if match["name"] in HOST_BUFFERS:
        return "CPU"
    return endpoints.get(match["endpoint"] or "", match["name"])


class _Encoder:
    """What a projector's encoder says of itself, line by line."""

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        self.endpoints = endpoints
        self.device = "CPU"

    def reads(
        self, line: str, buffer: re.Match[str] | None, found: EngineMemory
    ) -> bool:
        """Whether the line was the encoder's."""
        if match := _ENCODER.search(line):
            self.device = _device(match, self.endpoints)
            return True
        if match := _ENCODER_WEIGHTS.search(line):
            self._add(found, self.device, match["mib"])
            return True
        if buffer and buffer["part"] == _ENCODER_BUFFER:
            self._add(found, _device(buffer, self.endpoints), buffer["mib"])
            return True
        return False

    def _add(self, found: EngineMemory, device: str, mib: str) -> None:
        found.devices.setdefault(device, Reported()).projector += float(mib) * MIB


def _add(
    found: EngineMemory,
    match: re.Match[str],
    endpoints: Mapping[str, str],
    before: Mapping[str, float],
) -> None:
    name = match["name"]
    size = float(match["mib"]) * MIB
    device = _device(match, endpoints)
    use = found.devices.setdefault(device, Reported())
    if match["what"] in ("KV", "RS"):
        use.kv += size
    elif match["what"] == "compute":
        # Reserved again, the last one counts.
        use.compute = before.get(device, 0) + size
    elif match["what"] == "output":
        use.output += size
    elif name.endswith("_Mapped"):
        use.mapped += size
    elif name in ("CPU_REPACK", "AMX"):
        use.repacked += size
    else:
        use.weights += size
