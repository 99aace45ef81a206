"""Is this answer right? Text in, verdict out; no torch, no `eval`, and of use alone: `python -m grader "1/2" "0.5"`."""
