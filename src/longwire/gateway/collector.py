"""The garbage collector, kept off what lives long (DESIGN §5).

A full collection walks every tracked object: with a million connections that is a second of silence. Connections and
sessions form no cycles once they have ended, so that reference counts free them; what has settled is frozen, which
takes it out of every later collection.
"""

import gc

_THRESHOLDS = (20_000, 20, 50)
_SETTLED = 2_000


class Collector:
    """Freezes what has survived, as connections settle."""

    def __init__(self) -> None:
        self._frozen_at = 0

    def start(self) -> None:
        """Sets thresholds for a process of many objects and freezes what the start made."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)

    def settle(self, connects: int) -> None:
        """Called now and then with the number of connects so far; cheap where few are new."""
        if connects - self._frozen_at >= _SETTLED:
            self._frozen_at = connects
            # Young garbage must not be frozen with the living: it would never be freed.
            gc.collect(1)
            gc.freeze()
