"""`python -m ifvit` is the `ifvit` command."""

from ifvit.commands.main import entry_point

entry_point()
