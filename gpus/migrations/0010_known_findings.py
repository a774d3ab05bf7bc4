import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('gpus', '0009_history'),
    ]

    operations = [
        migrations.CreateModel(
            name='KnownFinding',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('code', models.CharField(max_length=60)),
                ('subject', models.CharField(blank=True, max_length=200)),
                ('fingerprint', models.CharField(max_length=32)),
                ('known_at', models.DateTimeField(auto_now=True)),
                ('host', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='known_findings', to='gpus.host')),
                ('known_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('code', 'subject'),
                'constraints': [models.UniqueConstraint(fields=('host', 'code', 'subject'), name='finding_known_once')],
            },
        ),
    ]
