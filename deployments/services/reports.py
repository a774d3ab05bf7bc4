"""What commands print as JSON: rows and plans as plain dictionaries with the documented keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from deployments.library.folders import ScanReport
from deployments.models import Deployment, Instance, Model
from deployments.planning.corrections import Correction, Errors
from deployments.planning.plan import Plan, Predicted
from deployments.services.runnable import runnable
from gpus.models import Device, Gpu, Host

Document = dict[str, Any]


def scan_document(report: ScanReport) -> Document:
    return {
        "models": [_model(model) for model in report.models],
        "skipped": list(report.skipped),
    }


def _model(model: Model) -> Document:
    known: Document = {
        "name": model.name,
        "path": model.path,
        "arch": model.arch,
        "params": model.n_params,
        "quant": model.quant,
        "size_bytes": model.size_bytes,
        "n_layer": model.n_layer,
        "n_ctx_train": model.n_ctx_train,
    }
    return known | ({"error": model.error} if model.error else {})


def plans_document(plans: Iterable[tuple[str, Plan]]) -> Document:
    return {"deployments": [_plan(name, plan) for name, plan in plans]}


def _plan(name: str, plan: Plan) -> Document:
    return {
        "name": name,
        "strategy": plan.strategy,
        "verdict": str(plan.verdict),
        "reasons": [
            {
                "code": r.code,
                "severity": str(r.severity),
                "text": f"{r.text} {r.fix}".strip(),
            }
            for r in plan.reasons
        ],
        "devices": [use.document() for use in plan.devices],
        "instances": [asdict(runnable(instance, name)) for instance in plan.instances],
        "predicted": _predicted(plan.predicted),
    }


def _predicted(known: Predicted) -> Document:
    return {
        "prefill_tps": known.prefill_tps,
        "decode_tps": known.decode_tps,
        "basis": known.basis,
        "prefill_range": known.prefill_range,
        "decode_range": known.decode_range,
        "computed_prefill_tps": known.computed_prefill_tps,
        "computed_decode_tps": known.computed_decode_tps,
        "prefill_corrected_by": _corrected_by(known.prefill_correction),
        "decode_corrected_by": _corrected_by(known.decode_correction),
        "prefill_past_error": _past_error(known.prefill_errors),
        "decode_past_error": _past_error(known.decode_errors),
    }


def _corrected_by(by: Correction | None) -> Document | None:
    """Which runs; None: it is computed only."""
    if by is None:
        return None
    return {
        "benchmarks": by.benchmarks,
        "answers": by.answers,
        "alike": str(by.alike),
        "devices": list(by.devices),
        "ratio": by.ratio,
    }


def _past_error(errors: Errors | None) -> Document | None:
    """Predicted ÷ measured − 1 of earlier runs, as per cents."""
    if errors is None:
        return None
    return {
        "runs": errors.runs,
        "median_percent": 100 * errors.median,
        "low_percent": 100 * errors.low,
        "high_percent": 100 * errors.high,
    }


def status_document() -> Document:
    deployments = Deployment.objects.prefetch_related("instances")
    return {
        "hosts": [_host(host) for host in Host.objects.all()],
        "gpus": [_gpu(gpu) for gpu in Gpu.objects.select_related("host")],
        "devices": [
            _device(device) for device in Device.objects.select_related("host", "gpu")
        ],
        "deployments": [_deployment(deployment) for deployment in deployments],
    }


def _host(host: Host) -> Document:
    seen = host.agent_seen_at
    return {
        "name": host.name,
        "cpu": host.cpu_name,
        "cpu_count": host.cpu_count,
        "ram_bytes": host.ram_bytes,
        "nvml": host.nvml_state,
        "agent_pid": host.agent_pid,
        "agent_seen_at": seen.isoformat() if seen else None,
    }


def _gpu(gpu: Gpu) -> Document:
    keys = ("uuid", "index", "name", "pci_bus_id", "memory_bytes", "state")
    return {"host": gpu.host.name} | {key: getattr(gpu, key) for key in keys}


def _device(device: Device) -> Document:
    keys = (
        "name",
        "kind",
        "description",
        "memory_bytes",
        "endpoint",
        "is_stand_in",
        "is_present",
    )
    gpu = device.gpu.uuid if device.gpu else None
    return {"host": device.host.name, "gpu": gpu} | {
        key: getattr(device, key) for key in keys
    }


def _deployment(deployment: Deployment) -> Document:
    return {
        "name": deployment.name,
        "strategy": deployment.strategy,
        "desired": deployment.desired,
        "unloaded": deployment.is_unloaded,
        "state": str(deployment.shown_state),
        "error": deployment.error,
        "instances": [_instance(instance) for instance in deployment.instances.all()],
    }


def _instance(instance: Instance) -> Document:
    keys = ("role", "pid", "port", "state", "restarts", "error")
    return {key: getattr(instance, key) for key in keys} | {
        "address": instance.listens_at
    }
