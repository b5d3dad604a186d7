"""What `python -m data_prep verify` finds in a folder."""

from pathlib import Path

from data_prep.set_verification import SetVerification


def verified(folder: Path) -> SetVerification:
    found = SetVerification(folder)
    found.run()
    return found


def faults(folder: Path) -> list[str]:
    return [str(fault) for fault in verified(folder).faults.kept]
