"""What a process was started with stands in its row; rows of before get it from their command.

The flavours of engines are rows of the registry in engines/: the database names none.
"""

from django.db import migrations, models


def read_commands(apps, schema_editor):
    """Once: engines that run while the panel is upgraded go on, and are looked after as before."""
    instances = apps.get_model("deployments", "Instance").objects
    for pk, argv in list(instances.exclude(argv=[]).values_list("pk", "argv")):
        instances.filter(pk=pk).update(launch=facts_of(argv))


def facts_of(argv):
    """As version 0.1.0 of November 2026 made commands. Of an engine that is configured by a file
    its command tells nothing."""
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        return {}
    if argv[1:2] == ["serve"] and len(argv) > 2:
        return {
            "flavour": "vllm",
            "model_path": argv[2],
            "is_folder": True,
            "alias": value(argv, "--served-model-name"),
            "slots": number(value(argv, "--max-num-seqs")),
        }
    if "--config" in argv:
        return {"flavour": "tabbyapi", "is_folder": True}
    if value(argv, "-H") and "--alias" not in argv:
        return {"bind_address": value(argv, "-H")}
    if "-m" not in argv:
        # What is kept of a command that is no engine's: its name, for requests, at the most.
        return {"alias": value(argv, "--alias")}
    names = [*parts(argv, "--device"), *parts(argv, "-dev"), *parts(argv, "-devd")]
    return {
        "flavour": "ik_llama.cpp" if value(argv, "--webui") == "none" else "llama.cpp",
        "model_path": value(argv, "-m"),
        "draft_path": value(argv, "-md"),
        "is_folder": False,
        "alias": value(argv, "--alias"),
        "kind": kind(argv),
        "slots": number(value(argv, "-np")),
        "slots_folder": value(argv, "--slot-save-path"),
        "rpc_endpoints": parts(argv, "--rpc"),
        "devices": [name for name in dict.fromkeys(names) if name != "none"],
        "split_mode": value(argv, "-sm"),
        "drafts": "--spec-type" in argv,
    }


def value(argv, flag):
    """The word after the flag; empty without it."""
    return next((word for name, word in zip(argv, argv[1:]) if name == flag), "")


def parts(argv, flag):
    return [part for part in value(argv, flag).split(",") if part]


def number(text):
    return int(text) if text.isdigit() else 1


def kind(argv):
    if "--reranking" in argv or "--rerank" in argv:
        return "reranker"
    return "embedding" if "--embeddings" in argv or "--embedding" in argv else "text"


class Migration(migrations.Migration):
    dependencies = [("deployments", "0011_model_kinds")]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="launch",
            field=models.JSONField(
                blank=True, default=dict, help_text="what it was started with (LaunchFacts)"
            ),
        ),
        migrations.AlterField(
            model_name="engine",
            name="flavour",
            field=models.CharField(max_length=20),
        ),
        migrations.RunPython(read_commands, migrations.RunPython.noop),
    ]
