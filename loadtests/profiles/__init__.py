"""One profile a file, each a locustfile of its own."""
