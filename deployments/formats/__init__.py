"""What files say: GGUF, safetensors and model folders, each read once, and what a model is from
that.

Pure: reads what it is given and asks nobody; imports nothing of the project but what all apps
share. May be entered by everybody.
"""
