"""Speeds that others have measured with llama.cpp and published, beside what is predicted for them.

Numbers only, each with its source and the build or date. Rows that are held out took no part when
the shares of deployments/planning/speed.py were fitted. Left out are runs that a power limit or a
slow host held back, of 2024 all but 70B models (before CUDA graphs launches of kernels took up to a
half of a small model's time), and MXFP4 by Vulkan before 2026. Where two sources disagree about one
pair, both stand here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_GITHUB = "github.com/"
_LLAMA_CPP = _GITHUB + "ggml-org/llama.cpp"
# The source → address, and build or date.
SOURCES = {
    "pro6000": ("llm-tracker.info, RTX PRO 6000", "b6413, September 2025"),
    "spark": (_LLAMA_CPP + ", benches/dgx-spark", "b6918, November 2025"),
    "7b": ("llm-tracker.info/howto/Intel-GPUs", "b4006, October 2024"),
    "coder": (
        _GITHUB + "AUGMXNT/speed-benchmarking, llama.cpp-code",
        "b4400, 2024-12-31",
    ),
    "15802": (_LLAMA_CPP + "/pull/15802", "September 2025"),
    "17505": (_LLAMA_CPP + "/pull/17505", "November 2025"),
    "17891": (_LLAMA_CPP + "/pull/17891", "December 2025"),
    "15631": (_LLAMA_CPP + "/pull/15631", "August 2025"),
    "16834": (_LLAMA_CPP + "/pull/16834", "October 2025"),
    "19053": (_LLAMA_CPP + "/pull/19053", "February 2026"),
    "8b": ("huggingface.co/posts/csabakecskemeti/458514085783723", "February 2025"),
    "continuum": (_GITHUB + "CambrianTech/continuum/pull/1627", "June 2026"),
    "gpu_ext": (_GITHUB + "eunomia-bpf/gpu_ext, workloads/llama.cpp", "2026-02-16"),
    "2024": (_GITHUB + "XiongjieDai/GPU-Benchmarks-on-LLM-Inference", "May 2024"),
    "geerling": (
        _GITHUB + "geerlingguy/ai-benchmarks",
        "b7293 to b7474, December 2025",
    ),
    "5070": (_GITHUB + "AlexsJones/llmfit/pull/787", "July 2026"),
    "7900": (_GITHUB + "AlexsJones/llmfit/pull/808", "July 2026"),
    "20934": (_LLAMA_CPP + "/issues/20934", "March 2026"),
    "1337": (_GITHUB + "1337hero/rx7900xtx-llama-bench-vulkan", "b7356, December 2025"),
    "9070": (_GITHUB + "maeddesg/vulkanforge/wiki/Benchmarks", "b9174, June 2026"),
    "strix": (_GITHUB + "visorcraft/strix-halo-llm-perf", "b8038, February 2026"),
    "halo": (_GITHUB + "lhl/strix-halo-testing", "b6111, August 2025"),
}


@dataclass(frozen=True)
class Published:
    """One card, one model: tokens/s of one request.

    `depth` is how many tokens were there on average while it answered, `prompt` how long the one
    read was, `batch` how many of it were read at once.
    """

    card: str
    model: str
    source: str
    decode_tps: float | None = None
    depth: int = 64
    prefill_tps: float | None = None
    prompt: int = 512
    batch: int = 512
    is_held_out: bool = False
    # Where it is not the one that the card is best run by.
    backend: str = ""


def _held_out(row: Published) -> Published:
    return replace(row, is_held_out=True)


_PRO = "RTX PRO 6000 Blackwell"
_MAX_Q = "RTX PRO 6000 Blackwell Max-Q"
_ADA = "RTX 6000 Ada"
PUBLISHED: tuple[Published, ...] = (
    # Dense, 7 to 8 B.
    Published(_PRO, "Llama 2 7B Q4_0", "pro6000", 278.95, prefill_tps=16634),
    Published("RTX 3090", "Mistral 7B Q4_K_M", "7b", 150.65, prefill_tps=5408),
    Published("RTX 4090", "Mistral 7B Q4_K_M", "7b", 172.31, prefill_tps=12330),
    Published("RTX 3090", "Llama 3.1 8B Q4_0", "15802", 156.56, depth=256),
    Published("RTX 5090", "Llama 3.1 8B Q8_0", "8b", 143.18, prefill_tps=12207),
    _held_out(Published("RTX 5090", "Qwen3 8B Q4_K_M", "continuum", 221.7, depth=200)),
    Published(
        _ADA, "Llama 3.1 8B Q4_0", "19053", 168.85, prefill_tps=7979, prompt=8096
    ),
    Published("RTX 5070", "Llama 3.1 8B Q4_K_M", "5070", 105.32, depth=100),
    Published("RTX 5070", "Mistral 7B Q4_K_M", "5070", 111.54, depth=100),
    Published(
        "GB10",
        "Qwen2.5 7B Q8_0",
        "spark",
        29.30,
        depth=16,
        prefill_tps=2276,
        prompt=2048,
        batch=2048,
    ),
    Published("RX 7900 XTX", "Llama 2 7B Q4_0", "20934", 172),
    Published("RX 7900 XTX", "Llama 2 7B Q4_0", "1337", 129.21),
    Published("RX 7900 XT", "Llama 3.1 8B Q4_K_M", "7900", 114.33, depth=100),
    Published("RX 9070 XT", "Llama 3.1 8B Q4_K_M", "9070", 119.6, prefill_tps=4802),
    _held_out(
        Published("RX 9070 XT", "Qwen3 8B Q4_K_M", "9070", 114.9, prefill_tps=4472)
    ),
    Published("Radeon 8060S", "Llama 2 7B Q4_0", "halo", 51.2, prefill_tps=925),
    # After a long prompt.
    Published("GB10", "Qwen2.5 7B Q8_0", "spark", 22.70, depth=32784),
    _held_out(Published("RTX 4090", "Llama 3.1 8B Q4_0", "17505", 102.76, depth=33024)),
    _held_out(Published("RTX 3090", "Llama 2 7B Q4_0", "17891", 40.02, depth=33024)),
    # Dense, 12 to 14 B.
    _held_out(
        Published(_PRO, "Mistral Nemo 12B Q4_K_M", "pro6000", 163.31, prefill_tps=9877)
    ),
    Published(
        "RTX 3060 12 GB", "Qwen2.5 14B Q4_K_M", "geerling", 29.77, backend="vulkan"
    ),
    _held_out(
        Published("RTX 4090", "Qwen2.5 14B Q4_K_M", "geerling", 92.49, backend="vulkan")
    ),
    _held_out(Published("RTX 5070", "Qwen3 14B Q4_K_M", "5070", 59.01, depth=150)),
    _held_out(Published("RX 7900 XT", "Qwen2.5 14B Q4_K_M", "7900", 65.73, depth=150)),
    Published("Radeon 8060S", "Qwen2.5 14B Q4_K_M", "strix", 24.47, prefill_tps=600),
    # Dense, 32 B.
    _held_out(
        Published("RTX 3090", "Qwen2.5 32B Q4_K_M", "coder", 38.34, prefill_tps=1336)
    ),
    Published("RX 7900 XT", "Qwen2.5 32B Q4_K_M", "7900", 31.13, depth=100),
    _held_out(
        Published("Radeon 8060S", "Qwen2.5 32B Q4_K_M", "strix", 11.25, prefill_tps=242)
    ),
    # Dense, 70 B.
    Published(_PRO, "Llama 3 70B Q4_K_M", "pro6000", 34.05, prefill_tps=1794),
    Published("RTX A6000", "Llama 3 70B Q4_K_M", "2024", 14.58, depth=512),
    _held_out(Published(_ADA, "Llama 3 70B Q4_K_M", "2024", 18.36, depth=512)),
    Published("H100 PCIe", "Llama 3 70B Q4_K_M", "2024", 25.01, depth=512),
    _held_out(
        Published("A100 80GB PCIe", "Llama 3 70B Q4_K_M", "2024", 22.11, depth=512)
    ),
    Published("Radeon 8060S", "Llama 3 70B Q4_K_M", "strix", 5.10, prefill_tps=81.6),
    # Mixtures of experts.
    Published(_PRO, "Qwen3 30B-A3B Q4_K_M", "pro6000", 251.61, prefill_tps=7640),
    Published("RTX 4090", "Qwen3 30B-A3B Q4_0", "15631", 205.87, depth=2048),
    Published("RTX 4090", "Qwen3 30B-A3B Q4_0", "16834", 163.48),
    _held_out(
        Published(
            "GB10",
            "Qwen3 30B-A3B Q8_0",
            "spark",
            60.92,
            depth=16,
            prefill_tps=3176,
            prompt=2048,
            batch=2048,
        )
    ),
    Published("GB10", "Qwen3 30B-A3B Q8_0", "spark", 30.80, depth=32784),
    _held_out(
        Published("RX 7900 XT", "Qwen3 30B-A3B Q4_K_M", "7900", 158.42, depth=150)
    ),
    _held_out(
        Published(
            "Radeon 8060S", "Qwen3 30B-A3B Q4_K_M", "strix", 86.07, prefill_tps=1142
        )
    ),
    Published("RTX 5090", "gpt-oss 20B MXFP4", "gpu_ext", 354.57, prefill_tps=9610),
    Published(
        _MAX_Q, "gpt-oss 20B MXFP4", "19053", 353.16, prefill_tps=12758, prompt=8096
    ),
    _held_out(
        Published(
            _ADA, "gpt-oss 20B MXFP4", "19053", 253.90, prefill_tps=8376, prompt=8096
        )
    ),
    Published("RTX 3090", "gpt-oss 20B MXFP4", "15631", 186.29, depth=2048),
    Published(
        "RTX 4090",
        "gpt-oss 20B MXFP4",
        "15631",
        prefill_tps=10565,
        prompt=4096,
        batch=2048,
    ),
    Published("RTX 4090", "gpt-oss 20B MXFP4", "16834", 187.25),
    Published(
        "GB10",
        "gpt-oss 20B MXFP4",
        "spark",
        84.10,
        depth=16,
        prefill_tps=3783,
        prompt=2048,
        batch=2048,
    ),
    Published("RX 7900 XT", "gpt-oss 20B MXFP4", "7900", 162.61, depth=125),
    _held_out(Published(_PRO, "gpt-oss 120B MXFP4", "pro6000", 193.30)),
    _held_out(
        Published(
            "GB10",
            "gpt-oss 120B MXFP4",
            "spark",
            59.02,
            depth=16,
            prefill_tps=1938,
            prompt=2048,
            batch=2048,
        )
    ),
    Published("GB10", "gpt-oss 120B MXFP4", "spark", 41.35, depth=32784),
)
