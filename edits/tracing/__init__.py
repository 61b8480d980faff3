"""Causal mediation analysis of a pipeline: which of its parts carry what a caption asks for."""
