"""Whose turn it is: groups of drawings that cannot share a pass share the device's time."""

from collections.abc import Collection, Hashable
from typing import TypeVar

__all__ = ["Turns"]

_Group = TypeVar("_Group", bound=Hashable)


class Turns:
    """Fair in time, not in steps: a group of large images does not slow down one of small ones.

    A clock goes on by the share of each pass that every group present is due. Newcomers begin
    there: who was away has no claim to the time meanwhile, and a stream of them, each with a step
    or two, passes by whoever is ahead of it for as long only as that one is ahead.
    One thread owns it.
    """

    def __init__(self) -> None:
        self._clock = 0.0
        self._used: dict[Hashable, float] = {}  # seconds, from a common start
        self._present = 1

    def next(self, groups: Collection[_Group]) -> _Group:
        """The group that has had least.

        One that has had more than its share keeps its time while it is absent, until the clock has
        come by: leaving does not pay.
        """
        self._used = {
            group: used
            for group, used in self._used.items()
            if group in groups or used > self._clock
        }
        present = [self._used[group] for group in groups if group in self._used]
        if present:  # groups that left early or late have moved the others away from the clock
            self._clock = min(max(self._clock, min(present)), max(present))
        for group in groups:
            self._used.setdefault(group, self._clock)
        self._present = len(groups)
        return min(groups, key=lambda group: self._used[group])

    def took(self, group: Hashable, seconds: float) -> None:
        """That group has used the device for so long."""
        self._used[group] += seconds
        self._clock += seconds / self._present
