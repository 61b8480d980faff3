"""What a model draws, measured: the judge, the CLIP scorer, rates and drift."""
