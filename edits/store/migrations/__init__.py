"""Alembic's script directory: `env.py` runs the scripts in `versions/` on the given connection."""
