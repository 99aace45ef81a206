"""Looks at runs and at the code from outside, one command per file: `python -m tools.NAME`.

doctor      checks model, data and machine before a run
replay      computes one recorded step of a run again
plot        curves of runs as a PNG or, with --html, as a page (report.py), and a table; runs.py reads a run's folder
study       the paper's comparisons over many seeds; compare.py makes their tables and pictures
bench       times a step, its parts and each optimization, against the machine's limits and TRL; compares a GPU's step
            with a CPU's. speed.py measures
"""
