"""A run's life, from its flags to its last checkpoint. In reading order:

flags           every flag, with its unit and the paper's value
setup           what happens before the first step, by the next four:
ranks, models, problems, memory
checkpoint      a run on disk: complete or absent
journal         metrics, the terminal, warnings
noise           how much of a gradient is noise
record          a step's samples in a file, for --replay
faults          signals, lost ranks, rewards that hang
eval_flags, scores    the flags of eval.py; its result file, and its tables
"""
