"""How much a description of a model may say: far above what models have, as files come from
strangers and facts are kept for each layer."""

from __future__ import annotations

MAX_LAYERS = 10_000
MAX_NUMBER = 1 << 48
MAX_TEXT = 200
MAX_HPARAMS = 256
