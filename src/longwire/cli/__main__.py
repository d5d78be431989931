"""``python -m longwire.cli``: the program where it is not on the path."""

from longwire.cli import main

main()
