"""The rig file: read with every mistake at its line, compared, applied as a whole, exported.

The words of the file and its JSON Schema stand in words.py and schema.py.
Entered by pages and commands.
"""
