"""Whose turn it is: groups of drawings that cannot share a pass share the device's time."""

from collections.abc import Collection, Hashable
from typing import TypeVar

__all__ = ["Turns"]

_Group = TypeVar("_Group", bound=Hashable)


class Turns:
    """Fair in time, not in steps: a group of large images does not slow down one of small ones.

    One thread owns it.
    """

    def __init__(self) -> None:
        self._used: dict[Hashable, float] = {}  # seconds, from a common start

    def next(self, groups: Collection[_Group]) -> _Group:
        """The group that has had least. A newcomer begins with what the poorest has had.

        Groups that are absent are forgotten: who was away has no claim to the time meanwhile.
        """
        present = {group: self._used[group] for group in groups if group in self._used}
        poorest = min(present.values(), default=0.0)
        self._used = {group: present.get(group, poorest) for group in groups}
        return min(groups, key=lambda group: self._used[group])

    def took(self, group: Hashable, seconds: float) -> None:
        """That group has used the device for so long."""
        self._used[group] += seconds
