"""What the host holds only once there were enough requests: prompts seen before, states to go back
to.

Source in llama.cpp: tools/server/server-context.cpp (create_checkpoint),
tools/server/server-task.cpp (prompt cache).
"""

from __future__ import annotations

from deployments.planning.architecture import ModelShape
from deployments.planning.kv import Cells, layer_kv_bytes, state_bytes
from deployments.planning.memory.settings import MemorySettings

# --checkpoint-min-step: tokens between two states of a request that are kept.
CHECKPOINT_STEP = 8192


def filling_bytes(model: ModelShape, settings: MemorySettings) -> int:
    """What the host holds only once there were enough requests: prompts seen before, states to go
    back to."""
    return settings.cache_ram_bytes + checkpoint_bytes(model, settings)


def checkpoint_bytes(model: ModelShape, settings: MemorySettings) -> int:
    """States of requests that are kept to go back to, where the cache alone does not allow it:
    windows and recurrent states, at most one for each CHECKPOINT_STEP tokens of a prompt and two
    near its end (tools/server/server-context.cpp, create_checkpoint)."""
    if settings.swa_full and not model.is_recurrent:
        return 0
    window = Cells(0, min(model.n_swa, settings.context), 1)
    kinds = [model.kind_of(index) for index in model.layers_with_memory]
    one = sum(
        (
            sum(layer_kv_bytes(model, kind, window, settings.type_k, settings.type_v))
            if kind.is_swa
            else 0
        )
        + state_bytes(kind, 1)
        for kind in kinds
    )
    parallel = max(settings.parallel, 1)
    most = (
        settings.context // (1 if settings.kv_unified else parallel) // CHECKPOINT_STEP
        + 2
    )
    return one * min(settings.ctx_checkpoints, most) * parallel
