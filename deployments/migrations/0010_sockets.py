from django.db import migrations, models


def ask_engines_again(apps, schema_editor):
    """Whether a build listens on Unix sockets was not asked before."""
    apps.get_model("deployments", "Engine").objects.update(probed_at=None)


class Migration(migrations.Migration):
    dependencies = [("deployments", "0008_model_format")]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="socket",
            field=models.CharField(
                blank=True, help_text="the Unix socket on which a process of ours listens", max_length=108
            ),
        ),
        migrations.AlterField(
            model_name="instance",
            name="port",
            field=models.PositiveIntegerField(
                blank=True, help_text="on which it listens where its engine knows no sockets", null=True
            ),
        ),
        migrations.AddConstraint(
            model_name="instance",
            constraint=models.UniqueConstraint(
                condition=models.Q(("socket", ""), _negated=True),
                fields=("host", "socket"),
                name="socket_once_per_host",
            ),
        ),
        migrations.RunPython(ask_engines_again, migrations.RunPython.noop),
    ]
