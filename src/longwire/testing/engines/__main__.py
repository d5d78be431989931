"""``python -m longwire.testing.engines [NAME …]``: installs what the named engines, or all, lack here."""

import sys

from longwire.testing.engines.base import EngineMissing
from longwire.testing.engines.install import install, lacking


def main() -> int:
    names = sys.argv[1:]
    try:
        if wanted := lacking(*names):
            sys.stdout.write(f"installing {', '.join(wanted)}\n")
            sys.stdout.flush()
            install(*names)
    except (EngineMissing, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
