"""What is asked. In reading order:

data.py        problems from files and the hub, and the order in which training takes them
prompts.py     how a problem becomes the token ids that the model sees
benchmarks.py  the public test sets and a check of their answers
addition.py    the built-in task: sums, and the small model that learns them
"""
