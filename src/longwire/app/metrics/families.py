"""The shapes of metrics: what the collectors give, made from plain numbers when somebody scrapes."""

from collections.abc import Mapping
from itertools import accumulate
from operator import mul
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from longwire.histogram import BUCKETS, Histogram

_AN_OCTAVE: Final = 8
_BOUNDS: Final = tuple(2.0**octave for octave in range(BUCKETS // _AN_OCTAVE))
"""Of a histogram's units; the last octave ends with +Inf."""
_ENDS: Final = tuple(_AN_OCTAVE * octave for octave in range(BUCKETS // _AN_OCTAVE))
_MIDDLES: Final = (0.5, *(2.0 ** ((bucket - 0.5) / _AN_OCTAVE) for bucket in range(1, BUCKETS)))

Value = float | Mapping[str, float]
"""One number, or one for each value of the family's only label."""


def counter(name: str, documentation: str, value: Value, label: str = "") -> Metric:
    """``name`` is without ``_total``."""
    family = CounterMetricFamily(name, documentation, labels=(label,) if label else ())
    for labels, number in _each(value):
        family.add_metric(labels, number)
    return family


def counter_by_two(
    name: str, documentation: str, value: Mapping[tuple[str, str], float], labels: tuple[str, str]
) -> Metric:
    """One number for each pair of labels; ``name`` is without ``_total``."""
    family = CounterMetricFamily(name, documentation, labels=labels)
    for pair, number in value.items():
        family.add_metric(pair, number)
    return family


def gauge(name: str, documentation: str, value: Value, label: str = "") -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=(label,) if label else ())
    for labels, number in _each(value):
        family.add_metric(labels, number)
    return family


def histogram(
    name: str, documentation: str, value: Histogram | Mapping[str, Histogram], unit_s: float, label: str = ""
) -> Metric:
    """In seconds, a bucket an octave; ``unit_s`` is what one unit of the histograms stands for."""
    family = HistogramMetricFamily(
        name, f"{documentation} The sum is right within 4.5 %.", labels=(label,) if label else ()
    )
    bounds = [f"{bound * unit_s:.9g}" for bound in _BOUNDS]
    one_each = {"": value} if isinstance(value, Histogram) else value
    for key, each in one_each.items():
        counts = each.counts[:]  # another thread may add
        running = list(accumulate(counts))
        buckets = [(bound, running[end]) for bound, end in zip(bounds, _ENDS, strict=True)]
        buckets.append(("+Inf", running[-1]))
        family.add_metric((key,) if label else (), buckets, sum(map(mul, counts, _MIDDLES)) * unit_s)
    return family


def _each(value: Value) -> list[tuple[tuple[str, ...], float]]:
    if isinstance(value, Mapping):
        return [((key,), number) for key, number in value.items()]
    return [((), value)]
