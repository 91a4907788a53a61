"""The page about metrics is made from the metrics, and knows all of them."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autostart.metrics import METRICS, Metrics, reference

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_page_is_the_one_that_the_code_makes():
    assert PAGE.read_text() == reference(), "run: python -m autostart.metrics > docs/metrics.md"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_on_the_page(metric):
    assert f"| `autostart_{metric.name}` | {metric.kind} |" in PAGE.read_text()


def test_every_metric_of_ours_that_is_served_is_declared():
    declared = {f"autostart_{metric.name}" for metric in METRICS}
    families = text_string_to_metric_families(Metrics(list).render().decode())
    served = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("autostart_")
    }
    assert served == declared


def test_names_follow_the_conventions_of_prometheus():
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.help.endswith("."), metric.name
