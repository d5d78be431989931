"""The ports within one process: nothing to install, nothing shared, gone with the process."""
