"""Pages of metrics in the two formats that Prometheus reads.

Text 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/; OpenMetrics 1.0:
https://prometheus.io/docs/specs/om/open_metrics_spec/.

No library makes them, because the master would import it at the first scrape, and each worker that
is forked afterwards would have it: an application that sets PROMETHEUS_MULTIPROC_DIR before it
imports prometheus_client would find that imported, and its own metrics silently wrong.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct, field

Kind = Literal["counter", "gauge", "histogram", "summary"]


class Sample(Struct, frozen=True):
    """One value.  `suffix` follows the name of its family."""

    suffix: str
    labels: dict[str, str]
    value: float


class MetricFamily(Struct):
    """All samples of one name.  The name of a counter stands here without `_total`."""

    name: str
    kind: Kind
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float, suffix: str = "", **labels: str) -> "MetricFamily":
        """Adds a sample, and returns the family; the suffix of a counter is added here."""
        if self.kind == "counter":
            suffix = "_total"
        self.samples.append(Sample(suffix, labels, value))
        return self


def gauge(name: str, help: str) -> MetricFamily:
    return MetricFamily(name, "gauge", help)


def counter(name: str, help: str) -> MetricFamily:
    return MetricFamily(name, "counter", help)


def histogram(
    name: str, help: str, buckets: Iterable[tuple[str, float]], total: float
) -> MetricFamily:
    """`buckets`: (upper bound, how many values are not above it), the last with "+Inf".

    `total`: the sum of all values.
    """
    family = MetricFamily(name, "histogram", help)
    count = 0.0
    for bound, count in buckets:
        family.add(count, "_bucket", le=bound)
    return family.add(count, "_count").add(total, "_sum")


def summary(name: str, help: str, count: float, total: float) -> MetricFamily:
    return MetricFamily(name, "summary", help).add(count, "_count").add(total, "_sum")


def page(families: Iterable[MetricFamily], accept: str) -> tuple[str, bytes]:
    """(content type, bytes) of a page for a client with this Accept header."""
    if "application/openmetrics-text" in accept:
        kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
        lines = [*_lines(families, counter=""), "# EOF"]
    else:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        lines = list(_lines(families, counter="_total"))
    return kind, "".join(f"{line}\n" for line in lines).encode()


def _lines(families: Iterable[MetricFamily], counter: str) -> Iterator[str]:
    """`counter`: what follows the name of a counter in the lines about it."""
    for family in families:
        name = family.name + (counter if family.kind == "counter" else "")
        yield f"# HELP {name} {_escaped(family.help)}"
        yield f"# TYPE {name} {family.kind}"
        for sample in family.samples:
            pairs = ",".join(f'{key}="{_quoted(text)}"' for key, text in sample.labels.items())
            labels = f"{{{pairs}}}" if pairs else ""
            yield f"{family.name}{sample.suffix}{labels} {float(sample.value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
