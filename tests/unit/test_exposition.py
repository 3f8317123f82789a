"""Pages of metrics, as the parsers of prometheus_client read them."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from prefork.master.observe.exposition import counter, gauge, histogram, page, summary

FAMILIES = [
    gauge("plain", "A line with \\ and\nanother.").add(1),
    gauge("labelled", "Labels.")
    .add(2.5, name='a "quoted" \\ text\nin two lines')
    .add(3, name="unix:/run/caf\xe9.sock"),
    gauge("empty", "No samples."),
    counter("things", "Counted.").add(12345678901234, kind="large").add(0, kind="none"),
    histogram("seconds", "Times.", [("0.1", 1.0), ("1.0", 3.0), ("+Inf", 4.0)], 7.25),
    summary("waits", "Waits.", 4, 0.5),
]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0,*/*;q=0.1"])
def test_a_page_is_read_as_it_was_meant(accept: str) -> None:
    kind, data = page(FAMILIES, accept)
    assert kind.startswith("application/openmetrics-text" if accept else "text/plain")
    read = {each.name: each for each in (openmetrics if accept else text)(data.decode())}
    assert list(read) == [family.name for family in FAMILIES]
    for family in FAMILIES:
        found = read[family.name]
        assert (found.type, found.documentation) == (family.kind, family.help)
        assert [(each.name, each.labels, each.value) for each in found.samples] == [
            (family.name + each.suffix, each.labels, each.value) for each in family.samples
        ]
