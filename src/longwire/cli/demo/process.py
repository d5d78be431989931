"""``longwire`` as the demo starts it: the same program, which does not outlive the demo, however that ends."""

import ctypes
import signal

from longwire.cli import main

_PR_SET_PDEATHSIG = 1

# Linux's alone; elsewhere, and where it is refused, a demo that is killed leaves its node behind.
ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
main()
