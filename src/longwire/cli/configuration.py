"""``longwire config``: the settings as they are, and who said so."""

import os
from collections.abc import Iterator
from pathlib import Path

import typer

from longwire.cli import credentials, options
from longwire.cli.operator import DEFAULT_URL
from longwire.cli.options import load_settings
from longwire.cli.table import show
from longwire.cli.text import masked

app = typer.Typer(help="Settings: each value and where it came from.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    pass


@app.command("show")
def show_config(
    config: options.Config = None,
    data: options.Data = None,
    limit: options.Limit = None,
) -> None:
    """Show each setting, its value, and where it came from; then what commands call the API with."""
    from longwire.app.settings import names, shown

    loaded = load_settings({"data_dir": data}, limit, config)
    rows = [(name, shown(loaded.settings, name), loaded.sources[name]) for name in names()]
    show(("setting", "value", "from"), [*rows, *_client(loaded.settings.data_dir)], "")


def _client(folder: Path) -> Iterator[tuple[str, str, str]]:
    found = credentials.find(folder)
    kept, file = found if found is not None else ({}, None)
    for name, variable, key, default in (
        ("url", "LONGWIRE_URL", "http_url", DEFAULT_URL),
        ("api_key", "LONGWIRE_API_KEY", "api_key", "none"),
    ):
        value, source = os.environ.get(variable), f"environment {variable}"
        if not value:
            value, source = (kept[key], str(file)) if key in kept else (default, "default")
        is_secret = name == "api_key" and source != "default"
        yield name, masked(value) if is_secret else value, source
