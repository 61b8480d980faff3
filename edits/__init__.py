"""Closed-form concept edits of a text-to-image model's text encoder (Diff-QuickFix, ICLR 2024)."""
