"""What is asked. In reading order:

data.py        problems from files and the hub, and the order in which training takes them
rows.py        what a row asks and its answer, in the forms of public data sets
prompts.py     how a problem becomes the token ids that the model sees
pictures.py    how a problem's pictures become what the model sees: bounded, decoded, placed in its prompt
benchmarks.py  the public test sets and a check of their answers
built_in.py    the flags that the built-in tasks set
addition.py    the built-in task: sums, and the small model that learns them
lengths.py     the same with completions of very different lengths
shapes.py      the built-in task with pictures: counting, naming and finding shapes, and its model
"""
