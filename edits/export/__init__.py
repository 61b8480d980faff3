"""Edits out of the service: a diffusers folder, a small artefact, LoRA files."""
