"""Numbers about the service, in the text that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        name = "kandinsky_mindir"
        self.requests = Counter(f"{name}_requests", "answers by status", ["method", "path", "status"], registry=self.registry)
        self.jobs = Counter(f"{name}_jobs", "jobs that ended, by state", ["state"], registry=self.registry)
        self.rejected = Counter(f"{name}_rejected", "requests for which there was no room", registry=self.registry)
        self.pictures = Counter(f"{name}_pictures", "finished pictures", registry=self.registry)
        self.steps = Counter(f"{name}_steps", "denoising steps of the decoder", registry=self.registry)
        self.waited = Histogram(f"{name}_waiting_seconds", "from a request to its turn", buckets=SECONDS, registry=self.registry)
        self.painted = Histogram(f"{name}_painting_seconds", "of a picture", buckets=SECONDS, registry=self.registry)
        self.waiting = Gauge(f"{name}_queue_length", "jobs that wait", registry=self.registry)
        self.ready = Gauge(f"{name}_ready", "1 once models are loaded", registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
