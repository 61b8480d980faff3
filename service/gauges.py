"""Gauges that change together, and those of workers that were killed."""

import re
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from service import metrics
from service.settings import metrics_folder

__all__ = ["forget_dead_processes", "show_active"]


def show_active(
    revision: int, digest: str, *, edits: int, policies: int, published_at: float
) -> None:
    """Tell what runs from now on; `published_at` in seconds since 1970."""
    metrics.ACTIVE_REVISION.set(revision)
    # A number and no label: replicas with stores of their own count revisions of their own, and
    # 52 bits are what a float holds exactly.
    metrics.ACTIVE_SET_NUMBER.set(int(digest.removeprefix("sha256:")[:13], 16))
    metrics.ACTIVE_EDITS.set(edits)
    metrics.ACTIVE_POLICIES.set(policies)
    metrics.SET_PUBLISHED_AT.set(published_at)


def forget_dead_processes() -> None:
    """Take the gauges of workers that were killed out of the sums; without it they stay for good.

    BentoML starts a killed worker again but never says that it died: its queue would still be
    full, and its revision still the lowest.
    """
    folder = metrics_folder()
    for path in folder.glob("gauge_live*.db") if folder else ():
        match = re.fullmatch(r"gauge_live[a-z]+_(\d+)", path.stem)
        if match and not Path("/proc", match[1]).exists():
            mark_process_dead(int(match[1]))  # type: ignore[no-untyped-call]
