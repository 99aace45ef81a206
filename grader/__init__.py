"""Is this answer right? Text in, verdict out, without torch and without `eval`: `python -m grader "1/2" "0.5"`.

To be read in this order: words (tables of names, units and phrases), spelling (characters to tokens), trees and reading
(tokens to a tree), values (the value of a tree), equality (whether two answers are equal), extraction (which answer a
completion submits), boxes (which box, and how far two overlap), workers (many at once).
"""
