from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gpus", "0005_stand_ins")]

    operations = [
        migrations.AddField(
            model_name="host",
            name="nvml_fix",
            field=models.CharField(blank=True, help_text="what to do about it", max_length=300),
        ),
        migrations.AlterField(
            model_name="host",
            name="nvml_text",
            field=models.CharField(
                blank=True, help_text="why NVML gives no cards, in words", max_length=300
            ),
        ),
    ]
