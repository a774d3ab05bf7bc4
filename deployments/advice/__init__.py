"""Sets of purposes over sets of devices: layouts, search, ranking.

Pure: facts in, rig plans out; imports planning, strategies and the data sheets, never a row.
Entered by services; pages and commands get finished answers.
"""
