"""Longwire: a push system for millions of long-lived connections."""

__version__ = "0.1.0"
