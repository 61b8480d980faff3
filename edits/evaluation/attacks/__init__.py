"""Attacks on an edit: prompts and input vectors that bring a removed concept back."""
