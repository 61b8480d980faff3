"""What keeps the project true: lock files, schemas, checks."""
