"""Finds the user's application by the name given on the command line: ``shop:app``."""

import importlib
import sys
from pathlib import Path

from longwire.application.declarations import Longwire
from longwire.application.errors import LoadError


def load(name: str) -> Longwire:
    """Imports ``module:attribute`` (both may be dotted), with the working directory in front of the path.

    Raises LoadError, which says what is missing; a module that fails by itself is its cause.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise LoadError(f"application {name!r} is not module:attribute, such as shop:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise LoadError(f"module {module_name!r} was found, but imports {error.name!r}, which was not") from error
        raise LoadError(f"module {error.name!r} of application {name!r} was not found from {here}") from error
    except (Exception, SystemExit) as error:
        raise LoadError(f"module {module_name!r} failed on import: {type(error).__name__}: {error}") from error
    for step in attribute.split("."):
        try:
            found = getattr(found, step)
        except AttributeError as error:
            raise LoadError(f"module {module_name!r} has no {attribute!r}: {error}") from error
    if not isinstance(found, Longwire):
        raise LoadError(f"{name!r} is a {type(found).__name__}, not a Longwire application")
    return found
