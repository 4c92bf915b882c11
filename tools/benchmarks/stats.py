# SPDX-License-Identifier: Apache-2.0
"""Medians and spread of a few values."""

import statistics


def summary(values):
    """Median, least, greatest and interquartile range; None where nothing was measured."""
    if not values:
        return None
    ordered = sorted(values)
    if len(ordered) >= 4:
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    else:
        low, high = ordered[0], ordered[-1]
    return {
        "median": statistics.median(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        "q1": low,
        "q3": high,
        "n": len(ordered),
    }


def ratios(values, base):
    """Each run's value over the base row's value of the same round.

    Rounds are paired: what slows one whole round down cancels out. A round in which either
    is missing is left out.
    """
    pairs = ((values.get(round_), base.get(round_)) for round_ in sorted(base))
    return [value / of for value, of in pairs if value is not None and of]
