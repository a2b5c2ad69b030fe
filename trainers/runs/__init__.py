"""The folder of a run: who writes it and who reads it."""
