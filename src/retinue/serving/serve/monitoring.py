"""What a service tells Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from retinue.serving.serve.answers import Answering

METRICS_TYPE = CONTENT_TYPE_LATEST
"""Media type of what `ServiceMetrics.text` gives."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """Counters, histograms and gauges of one service, all named `retinue_…`.

    Args:
        queue_length: gives the number of images that are decoded, wait or are computed.
    """

    def __init__(self, queue_length: Callable[[], int]):
        self._registry = CollectorRegistry()
        kept = self._registry
        self._requests = Counter("retinue_requests", "Answered requests.", ["route", "status"], registry=kept)
        self._seconds = Histogram(
            "retinue_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=kept,
        )
        self._batch_sizes = Histogram("retinue_batch_size", "Images of a forward pass.", buckets=_SIZES, registry=kept)
        self._unreadable = Counter("retinue_unreadable_images", "Images that could not be decoded.", registry=kept)
        self._restarts = Counter("retinue_decoder_restarts", "Decoding processes that were replaced.", registry=kept)
        self._reloads = Counter("retinue_reloads", "Models loaded while serving.", ["outcome"], registry=kept)
        Gauge("retinue_queue_length", "Images decoded, waiting or computed.", registry=kept).set_function(queue_length)
        self._model = Info("retinue_model", "The model that answers.", registry=kept)

    def count_request(self, route: str, status: int, duration_s: float) -> None:
        """Counts an answered request; `route` is one of the service's own, or "other"."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(duration_s)

    def count_batch(self, size: int) -> None:
        """Counts a forward pass."""
        self._batch_sizes.observe(size)

    def count_unreadable(self) -> None:
        """Counts an image that could not be decoded."""
        self._unreadable.inc()

    def count_restart(self) -> None:
        """Counts a decoding process that was replaced."""
        self._restarts.inc()

    def count_reload(self, *, is_taken: bool) -> None:
        """Counts a model that was loaded, or refused."""
        self._reloads.labels("taken" if is_taken else "refused").inc()

    def name_model(self, model: Answering) -> None:
        """Says which model answers from now on."""
        self._model.info({"name": model.name, "weights": model.digest, "classes": str(len(model.classes))})

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)
