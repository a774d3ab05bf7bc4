"""What one model takes and how fast it is: settings, vocabulary, speed, presets.

Pure: numbers in, plans out; imports formats only, and never a strategy, an engine or a row.
Entered by strategies, engines and services; pages get finished plans.
"""
