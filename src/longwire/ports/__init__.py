"""The seams of the system: what the core asks of an engine, as short files of callables.

Each port has an embedded and a real adapter, and one contract suite that both pass (tests/contracts).
"""
