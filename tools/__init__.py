"""What looks at runs from outside: `python -m tools.NAME`."""
