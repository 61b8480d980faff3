"""Real faults against a real fleet under load: what the user saw, and what was lost.

`python -m benchmarks.faults` runs them all; the modules are the fleet, its traffic, the faults,
and what is checked after each.
"""
