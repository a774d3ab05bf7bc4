"""The parts of against_the_field.py: the tools, how they are installed, what came of them."""
