"""So many clients that the service is never idle: the most images per second that it draws.

As many as may wait (`-u`): fewer leave the last batch short, more meet a full queue.
"""

from loadtests.image_user import ClosedLoop


class Saturation(ClosedLoop):
    """Goodput counts once the first images of all clients are out."""

    settled = 0.25
