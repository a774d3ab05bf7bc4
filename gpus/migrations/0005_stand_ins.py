from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gpus", "0004_ram_measured")]

    operations = [
        migrations.AddField(
            model_name="host",
            name="stand_ins",
            field=models.PositiveSmallIntegerField(
                default=0,
                help_text="how many CPU-backed stand-ins somebody switched on where there is no GPU",
            ),
        ),
    ]
