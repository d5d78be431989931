"""The store on a SQL database: tables, migrations, and the adapters that read and write them.

commit, acknowledge, append ─► stage ─┐
registrations and other writes ───────┴─► one transaction (group commit) ─► callbacks on the loop
reads ─► reader threads, each with a connection of its own
"""
