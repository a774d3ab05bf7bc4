"""A library of 10,000 files: the first scan, a scan that finds nothing new, a look of the agent,
the Models page.

    python benchmarks/library_size.py [FILES]

Headers are of true shape (32 layers, a vocabulary of 1,000 tokens), weights are holes. The limits
are printed beside the figures; ends with 1 when one is passed (30 s for the first scan, 300 ms for
the page). SQLite, in a folder of its own.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SCAN_LIMIT_S, PAGE_LIMIT_MS = 30.0, 300.0
PAGES = (
    "/models/",
    "/models/?page=50",
    "/models/?q=model-99",
    "/models/?kind=embedding&sort=size",
    "/models/model-00042/",
    "/deployments/new/",
    "/plan/",
)


def write_models(folder: Path, count: int) -> None:
    from deployments.formats.ggml_types import GGML_TYPES_BY_NAME
    from tests.deployments.gguf_corpus import write_stub

    kind = GGML_TYPES_BY_NAME["Q4_K"].id
    keys = {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.context_length": 8192,
        "llama.embedding_length": 2048,
        "llama.feed_forward_length": 8192,
        "llama.attention.head_count": 16,
        "llama.attention.head_count_kv": 4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"token{number}" for number in range(1000)],
    }
    shapes = {
        "attn_q": (2048, 2048),
        "attn_k": (2048, 512),
        "attn_v": (2048, 512),
        "attn_output": (2048, 2048),
    }
    shapes |= {
        "ffn_gate": (2048, 8192),
        "ffn_up": (2048, 8192),
        "ffn_down": (8192, 2048),
    }
    layers = [
        (f"blk.{layer}.{name}.weight", shape, kind)
        for layer in range(32)
        for name, shape in shapes.items()
    ]
    tensors = [("token_embd.weight", (2048, 1000), kind), *layers]
    for number in range(count):
        path = folder / f"group-{number // 100:03}" / f"model-{number:05}.gguf"
        path.parent.mkdir(exist_ok=True)
        write_stub(path, keys | {"general.name": f"Model {number}"}, tensors)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(folder: Path) -> bool:
    from django.test import Client

    from deployments.library import folders
    from deployments.library.watch import LibraryWatch
    from deployments.models import Model

    busy = time.process_time()
    first = seconds(lambda: folders.scan([folder]))
    busy = time.process_time() - busy
    again = seconds(folders.scan)
    watch = LibraryWatch()
    looks = [seconds(watch.check) for _ in range(3)]
    print(f"{Model.objects.count()} models")
    print(f"  first scan           {first:8.1f} s    (limit {SCAN_LIMIT_S:.0f} s)")
    print(
        f"    of it on the core  {busy:8.1f} s    (load of the machine {os.getloadavg()[0]:.1f})"
    )
    print(f"  scan, nothing new    {again:8.1f} s")
    print(
        f"  looks of the agent   {', '.join(f'{look:.1f}' for look in looks)} s (the second takes"
        " the files up)"
    )
    slow = first > SCAN_LIMIT_S
    client = Client(SERVER_NAME="localhost")
    client.force_login(administrator())
    for address in PAGES:
        client.get(address)
        times = [
            seconds(lambda address=address: client.get(address)) * 1000
            for _ in range(5)
        ]
        size = len(client.get(address).content) / 1024
        is_models = address.startswith("/models/")
        slow = slow or (is_models and statistics.median(times) > PAGE_LIMIT_MS)
        print(f"  {address:34} {statistics.median(times):8.0f} ms   {size:7.0f} KiB")
    print(f"limit of the Models pages: {PAGE_LIMIT_MS:.0f} ms")
    return slow


def administrator() -> object:
    from django.contrib.auth.models import User

    return User.objects.create_superuser("benchmark")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as home:
        os.environ["OMNI_HOME"] = home
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        folder = Path(home) / "library"
        folder.mkdir()
        write_models(folder, count)
        return int(measure(folder))


if __name__ == "__main__":
    sys.exit(main())
