"""The databases of the contract tests, for what is found in them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from databases import database, migrated, open_database

__all__ = ["database", "migrated", "open_database"]
