from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('gpus', '0007_device_speed'),
    ]

    operations = [
        migrations.RenameField(
            model_name='host',
            old_name='troubles',
            new_name='problems',
        ),
    ]
