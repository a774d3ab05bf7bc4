from django.db import migrations, models
from django.db.models import Min


def engines_that_ran(apps, schema_editor):
    """What ran before this was kept has run all the same."""
    Engine = apps.get_model('deployments', 'Engine')
    Instance = apps.get_model('deployments', 'Instance')
    ready = Instance.objects.filter(deployment__isnull=False, ready_at__isnull=False)
    for engine, first in ready.values_list('deployment__engine').annotate(first=Min('ready_at')):
        Engine.objects.filter(pk=engine).update(ran_at=first)


class Migration(migrations.Migration):

    dependencies = [
        ('deployments', '0005_drain_and_unload'),
    ]

    operations = [
        migrations.AddField(
            model_name='deployment',
            name='remote_model',
            field=models.CharField(blank=True, help_text='on an external server, under the name it has there', max_length=200),
        ),
        migrations.AddField(
            model_name='engine',
            name='offers',
            field=models.JSONField(blank=True, default=list, help_text="an external server's own names of its models"),
        ),
        migrations.AddField(
            model_name='engine',
            name='ran_at',
            field=models.DateTimeField(blank=True, help_text='when a deployment on it first was ready here', null=True),
        ),
        migrations.AddField(
            model_name='instance',
            name='address',
            field=models.CharField(blank=True, help_text='of a server that somebody else runs; empty: a process of ours', max_length=300),
        ),
        migrations.RunPython(engines_that_ran, migrations.RunPython.noop),
    ]
