"""Well-known models at the hub, to be offered where the library has none for a purpose.

The figures stand in hub_models.csv, a model a line. Sizes are those of the file at
huggingface.co (Llama 3.3 70B's to 10 MB, as its page says); layers and trained context are those of
the model's config.json, parameters those of its page, to three figures. What a header says is asked
of the hub when somebody wants to know.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deployments.advice.purposes import meant_by
from deployments.names import HUB

_TABLE = Path(__file__).with_name("hub_models.csv")


@dataclass(frozen=True)
class HubModel:
    """`part` is a quantisation or a file of the repository; `n_params_active` are those that one
    token passes."""

    title: str
    repo: str
    part: str
    purposes: tuple[str, ...]
    size_bytes: int
    n_params: int
    n_params_active: int
    n_layer: int
    n_ctx_train: int

    @property
    def name(self) -> str:
        """As purposes files and rig files write it."""
        return f"{HUB}{self.repo}:{self.part}"

    @property
    def active_bytes(self) -> int:
        """What one token reads of the file."""
        return self.size_bytes * self.n_params_active // self.n_params


def hub_models_for(purpose: str) -> tuple[HubModel, ...]:
    """Of a purpose by its name, the largest first."""
    meant = meant_by(purpose)
    found = [model for model in all_hub_models() if meant in model.purposes]
    return tuple(sorted(found, key=lambda model: -model.size_bytes))


@cache
def all_hub_models() -> tuple[HubModel, ...]:
    with _TABLE.open(encoding="utf-8", newline="") as lines:
        return tuple(_model(row) for row in csv.DictReader(lines))


def _model(row: dict[str, str]) -> HubModel:
    n_params = int(row["n_params"])
    return HubModel(
        row["title"],
        row["repo"],
        row["part"],
        tuple(row["purposes"].split()),
        int(row["size_bytes"]),
        n_params,
        int(row["n_params_active"] or n_params),
        int(row["n_layer"]),
        int(row["n_ctx_train"]),
    )
