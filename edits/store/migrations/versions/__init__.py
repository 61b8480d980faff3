"""One script per change of schema, each with the SQL it needs written out."""
