from omni.administration import register

register()
