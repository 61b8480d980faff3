"""Tests of every room; packages, so that rooms may have files of the same name."""
