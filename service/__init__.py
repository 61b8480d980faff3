"""One replica of the image service: HTTP in, edited images out."""
