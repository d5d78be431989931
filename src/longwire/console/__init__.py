"""The console: the pages by which operators see and run a Longwire.

It is a process of its own and a client of ``/v1`` alone: whatever it shows, it has read there with the rights of the
person who looks.

    browser ── cookie ──► sign_in, sessions ── bearer, in memory ──► /v1
       └── pages (NiceGUI): shell draws the frame, parts and charts draw what a page loaded by its Seat's api

The token of /v1 never leaves this process: the browser holds a random cookie and nothing else.
"""

from longwire.console.settings import ConsoleSettings

__all__ = ["ConsoleSettings"]
