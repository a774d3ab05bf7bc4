from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deployments', '0020_purposes'),
    ]

    operations = [
        migrations.AddField(
            model_name='benchmarkrun',
            name='rates',
            field=models.JSONField(blank=True, default=list, help_text='requests a second of an open loop; none: users in a closed one'),
        ),
        migrations.AddField(
            model_name='benchmarkrun',
            name='slo_first_token_ms',
            field=models.FloatField(blank=True, help_text='service level: time to first token at most', null=True),
        ),
        migrations.AddField(
            model_name='benchmarkrun',
            name='slo_token_ms',
            field=models.FloatField(blank=True, help_text='service level: time per output token at most', null=True),
        ),
        migrations.AddField(
            model_name='benchmarkrun',
            name='think_s',
            field=models.FloatField(default=0.0, help_text='of a user, between an answer and the next question'),
        ),
    ]
