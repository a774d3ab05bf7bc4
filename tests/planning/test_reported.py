"""Buffer sizes in a server's log."""

from __future__ import annotations

import pytest

from deployments.planning.memory.reported import MIB, Projected, reported_memory

LOG = """\
0.00.066.956 I common_memory_breakdown_print: | memory breakdown [MiB]     | total    free    self   model   context
0.00.067.004 I common_memory_breakdown_print: |   - RPC0 (127.0.0.1:50451) | 24105 = 24105 + (  35 =     9 +      10 \
+      16) +         -35 |
0.00.067.006 I common_memory_breakdown_print: |   - Host                   |                     6 =     0 +       0 \
+       6                |
0.00.322.887 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
0.00.322.889 I load_tensors:   CPU_REPACK model buffer size =     1.50 MiB
0.00.322.889 I load_tensors: RPC0[127.0.0.1:47661] model buffer size =    37.14 MiB
0.00.575.417 I llama_context:        CPU  output buffer size =     0.75 MiB
0.00.575.550 I llama_kv_cache:        CPU KV buffer size =    31.50 MiB
0.00.637.057 I llama_kv_cache: RPC0[127.0.0.1:47661] KV buffer size =     6.00 MiB
0.00.637.057 I llama_memory_recurrent: RPC0[127.0.0.1:47661] RS buffer size =     0.25 MiB
0.00.894.358 I sched_reserve: RPC0[127.0.0.1:47661] compute buffer size =    13.00 MiB
0.00.894.358 I sched_reserve: RPC0[127.0.0.1:47661] compute buffer size =    13.26 MiB
0.00.894.362 I sched_reserve:        CPU compute buffer size =    15.51 MiB
0.00.995.000 I common_memory_breakdown_print: |   - RPC0 (127.0.0.1:50451) | 24105 = 24105 + (  99 =     9 +      10 \
+      80) +         -35 |
"""


def test_sizes_are_read_by_device() -> None:
    found = reported_memory(LOG.splitlines(), {"127.0.0.1:47661": "RPC1"})
    device, host = found.devices["RPC1"], found.devices["CPU"]
    assert [
        size / MIB for size in (device.weights, device.kv, device.compute)
    ] == pytest.approx([37.14, 6.25, 13.26])
    assert [
        size / MIB
        for size in (host.mapped, host.repacked, host.kv, host.compute, host.output)
    ] == pytest.approx([92.10, 1.50, 31.50, 15.51, 0.75])
    assert device.total / MIB == pytest.approx(56.65)


def test_the_engine_s_projection_is_what_it_said_before_it_allocated() -> None:
    found = reported_memory(LOG.splitlines())
    assert found.projected == {"RPC0": Projected(9, 10, 16), "CPU": Projected(0, 0, 6)}


def test_a_log_without_sizes_says_nothing() -> None:
    assert reported_memory(["main: listening"]).devices == {}


ENCODER_LOG = """
0.00.1 I sched_reserve: RPC0[127.0.0.1:47661] compute buffer size =    17.51 MiB
0.00.2 I clip_ctx: CLIP using RPC0[127.0.0.1:47661] backend
0.00.3 I load_hparams: model size:         7.51 MiB
0.00.4 I reserve_compute_meta: RPC0[127.0.0.1:47661] compute buffer size =     1.83 MiB
0.00.5 I reserve_compute_meta:        CPU compute buffer size =     0.58 MiB
"""


def test_a_projector_stands_apart_from_the_model() -> None:
    found = reported_memory(ENCODER_LOG.splitlines(), {"127.0.0.1:47661": "RPC1"})
    assert found.devices["RPC1"].compute == pytest.approx(17.51 * MIB)
    assert found.devices["RPC1"].projector == pytest.approx((7.51 + 1.83) * MIB)
    assert found.devices["CPU"].projector == pytest.approx(0.58 * MIB)
