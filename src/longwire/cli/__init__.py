"""The command line: one small module a group of commands.

    root ─┬─ serving        dev, serve ──► app.run.Process
          ├─ configuration  config show
          ├─ keys, devices, dead_letters ──► operator ──► /v1 over HTTP
          ├─ device         listen, send, request ──► the SDK
          └─ demo

Modules import what is slow where they use it, so that ``--help`` comes at once.
"""

import sys

from longwire.errors import LongwireError


def main() -> None:
    """The program ``longwire``. What is expected to go wrong is told in a line, without a stack."""
    from longwire.cli.root import app
    from longwire.cli.text import Failure, complain

    try:
        app(prog_name="longwire")
    except Failure as failure:
        complain(str(failure))
        sys.exit(failure.status)
    except LongwireError as error:
        complain(str(error))
        sys.exit(1)
