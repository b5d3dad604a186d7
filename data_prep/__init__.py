"""Jobs that turn an input listing into numbered, verified output files: `python -m data_prep <job>`."""
