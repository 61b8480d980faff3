"""The device that the service's tests draw on: `QUICKFIX_TEST_DEVICE`, by default the CPU."""

import os

DEVICE = os.environ.get("QUICKFIX_TEST_DEVICE", "cpu")
