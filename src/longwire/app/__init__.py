"""The program: settings, the one place that names concrete adapters, start and stop, logs."""
