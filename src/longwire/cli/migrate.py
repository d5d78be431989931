"""``longwire migrate``: brings the store of a cluster to this program's schema."""

from typing import Annotated

import typer

from longwire.cli import options
from longwire.cli.options import WRONG_SETTING
from longwire.cli.text import Failure


def migrate(
    store_url: options.StoreUrl = None,
    is_check: Annotated[
        bool, typer.Option("--check", help="Change nothing; status 1 where the schema is not this program's.")
    ] = False,
    config: options.Config = None,
) -> None:
    """Bring the store of a cluster to this program's schema.

    Run it once before processes of a new version start; those that run go on meanwhile. Of several at a time one
    works and the others wait for it. An embedded store needs none: it is brought there when it is opened.
    """
    import asyncio
    import os

    from longwire.app.settings import SettingsError, store_url_of

    try:
        url = store_url_of({"store_url": store_url}, os.environ, config)
    except SettingsError as error:
        raise Failure(str(error), WRONG_SETTING) from None
    if url is None:
        raise Failure("store_url is not set; an embedded store is migrated when it is opened", WRONG_SETTING)
    from longwire.app.store_schema import check_store, migrate_store

    if is_check:
        asyncio.run(check_store(url))
        typer.echo("the schema is this program's")
        return
    done = asyncio.run(migrate_store(url))
    typer.echo(f"migrated: {', '.join(done)}" if done else "nothing to do: the schema is this program's already")
