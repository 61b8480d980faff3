"""The service beside its peers, over HTTP: latency, throughput, fairness, cancelling, memory."""
