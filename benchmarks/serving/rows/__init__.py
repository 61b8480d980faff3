"""One module for each measurement: `measure(bench)` gives its rows of the table."""
