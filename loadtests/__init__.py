"""Load tests with a verdict: profiles for locust, and `python -m loadtests`, which runs a set.

Knows the HTTP contract and the command `quickfix serve` only, so it runs against any replica.
"""
