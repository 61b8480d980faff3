"""Checks the Kubernetes overlays offline, as they are rendered, against what the service is."""
