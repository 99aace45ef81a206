"""Is this answer right? Text in, verdict out, without torch and without `eval`: `python -m grader "1/2" "0.5"`.

To be read in this order: spelling (characters to tokens), reading (tokens to a tree), values (the value of a tree),
equality (whether two answers are equal), extraction (which answer a completion submits), workers (many at once);
boxes: answers about pictures.
"""
