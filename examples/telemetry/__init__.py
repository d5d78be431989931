"""A telemetry service: what sensors say, kept as running figures."""
