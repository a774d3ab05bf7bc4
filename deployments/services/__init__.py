"""The only writers of what is desired, and the plans, checks and answers that pages and commands
ask for.

Never imports the supervision: the agent is nudged by the name of its task.
Entered by pages, commands, rig files and the agent.
"""
