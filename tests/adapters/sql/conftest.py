"""The databases of the contract tests, for what only this package's stores promise."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "contracts"))

from databases import database, migrated, open_database

__all__ = ["database", "migrated", "open_database"]
