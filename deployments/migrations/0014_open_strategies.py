from django.db import migrations, models


class Migration(migrations.Migration):
    """Which strategies there are is the code's affair: a new one needs no migration."""

    dependencies = [
        ('deployments', '0013_stored_plan'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='deployment',
            name='deployment_strategy_known',
        ),
        migrations.AlterField(
            model_name='deployment',
            name='strategy',
            field=models.CharField(default='independent', max_length=20),
        ),
    ]
