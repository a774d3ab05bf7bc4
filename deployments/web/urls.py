from __future__ import annotations

from django.urls import path

from deployments.web.views import (
    bench_reports,
    benchmarks,
    deployments,
    devices,
    downloads,
    hub_plans,
    library,
    plan,
    rig_file,
    servers,
)

app_name = "deployments"
urlpatterns = [
    path("models/", library.models, name="models"),
    path("models/scan/", library.scan, name="scan"),
    path("models/folders/add/", library.folder_add, name="folder_add"),
    path(
        "models/folders/<int:pk>/remove/", library.folder_remove, name="folder_remove"
    ),
    path("models/download/", downloads.download, name="download"),
    path("models/download/list/", downloads.download_list, name="download_list"),
    path("models/download/plan/", hub_plans.hub_plan, name="hub_plan"),
    path("models/download/start/", downloads.start, name="download_start"),
    path("models/download/<int:pk>/pause/", downloads.pause, name="download_pause"),
    path("models/download/<int:pk>/resume/", downloads.resume, name="download_resume"),
    path("models/download/<int:pk>/cancel/", downloads.cancel, name="download_cancel"),
    path("models/download/<int:pk>/forget/", downloads.forget, name="download_forget"),
    path("models/<slug:name>/", library.model, name="model"),
    path("models/<slug:name>/advice/", library.model_advice, name="model_advice"),
    path("models/<slug:name>/remove/", library.model_remove, name="model_remove"),
    path("models/<slug:name>/deploy/", deployments.quick_deploy, name="quick_deploy"),
    path("servers/add/", servers.add, name="server_add"),
    path("servers/<slug:name>/", servers.server, name="server"),
    path("servers/<slug:name>/ask/", servers.ask, name="server_ask"),
    path("servers/<slug:name>/key/", servers.key, name="server_key"),
    path("servers/<slug:name>/offer/", servers.offer, name="server_offer"),
    path("servers/<slug:name>/remove/", servers.remove, name="server_remove"),
    path("plan/", plan.plan, name="plan"),
    path("plan/presets/", plan.plan_presets, name="plan_presets"),
    path("devices/across/", devices.across, name="across"),
    path("devices/stand-ins/", devices.stand_ins, name="stand_ins"),
    path(
        "devices/stand-ins/switch/", devices.stand_ins_switch, name="stand_ins_switch"
    ),
    path("devices/add/", devices.add, name="device_add"),
    path("devices/<int:pk>/remove/", devices.remove, name="device_remove"),
    path("devices/<slug:name>/server/", devices.server, name="device_server"),
    path("rig-file/", rig_file.rig_file, name="rig_file"),
    path("rig-file/rig.yaml", rig_file.download, name="rig_download"),
    path("rig-file/schema.json", rig_file.schema, name="rig_schema"),
    path("deployments/", deployments.deployments, name="deployments"),
    path("deployments/new/", deployments.create, name="create"),
    path("deployments/quick/", deployments.quick, name="quick"),
    path("deployments/<slug:name>/", deployments.deployment, name="deployment"),
    path("deployments/<slug:name>/change/", deployments.change, name="change"),
    path("deployments/<slug:name>/external/", servers.change, name="server_change"),
    path("deployments/<slug:name>/start/", deployments.start, name="start"),
    path("deployments/<slug:name>/stop/", deployments.stop, name="stop"),
    path("deployments/<slug:name>/delete/", deployments.delete, name="delete"),
    path(
        "benchmarks/<int:number>/export.<slug:kind>",
        bench_reports.benchmark_export,
        name="benchmark_export",
    ),
    path(
        "benchmarks/compared/",
        bench_reports.benchmarks_compared,
        name="benchmarks_compared",
    ),
    path("benchmarks/", benchmarks.benchmarks, name="benchmarks"),
    path("benchmarks/new/", benchmarks.create, name="benchmark_new"),
    path("benchmarks/<int:number>/", benchmarks.benchmark, name="benchmark"),
    path("benchmarks/<int:number>/cancel/", benchmarks.cancel, name="benchmark_cancel"),
    path("benchmarks/<int:number>/forget/", benchmarks.forget, name="benchmark_forget"),
]
