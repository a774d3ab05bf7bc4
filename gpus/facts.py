"""Collects what the doctor looks at."""

from __future__ import annotations

import psutil
from django.conf import settings

from gpus.doctor import CardFacts, Finding, HostFacts, card_rules, host_rules
from gpus.models import Gpu, Host
from gpus.nvml import Nvml


def host_facts_of(host: Host) -> HostFacts:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    disk = psutil.disk_usage(str(settings.OMNI_HOME.root))
    return HostFacts(
        nvml_state=host.nvml_state,
        nvml_text=host.nvml_text,
        ram_total_bytes=memory.total,
        ram_available_bytes=memory.available,
        swap_used_bytes=swap.used,
        disk_free_bytes=disk.free,
        home=str(settings.OMNI_HOME.root),
    )


def diagnose(host: Host) -> list[Finding]:
    """Every finding of this host and its cards, asked of NVML now."""
    nvml = Nvml()
    state = nvml.start()
    host.nvml_state, host.nvml_text = state.state, state.text
    findings = host_rules(host_facts_of(host))
    for sample in nvml.sample(0.0):
        findings += card_rules(CardFacts.from_sample(sample))
    return findings + [f for gpu in host.gpus.all() for f in stored_findings(gpu)]


def stored_findings(gpu: Gpu) -> list[Finding]:
    """What the last sample left behind of a card that no longer answers."""
    if gpu.state in (Gpu.State.OK, Gpu.State.ABSENT):
        return []
    title = f"{gpu.name} cannot be read" if gpu.state == Gpu.State.ERROR else f"{gpu.name} is lost"
    fix = "Look at the kernel log (dmesg) for Xid messages, check power and slot, restart the machine."
    return [Finding(f"gpu_{gpu.state}", "error", title, gpu.error, fix)]
