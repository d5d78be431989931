"""Applications to try and to begin from; each folder is one, with a README."""
