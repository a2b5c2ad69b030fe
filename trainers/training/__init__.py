"""One stage, step after step."""
