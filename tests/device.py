"""The device that the service's tests draw on: `TEST_DEVICE`, by default the CPU."""

import os

DEVICE = os.environ.get("TEST_DEVICE", "cpu")
