"""Concept erasers side by side: one model, the same prompts, seeds, sampling and judge."""
