#!/usr/bin/env python3
"""Makes statistics.json: samples with what numpy and scipy say of them. `pip install numpy scipy`, then run it here.

The ends of a bootstrap interval are random. Stored is the range in which an end found with 2000 resamples has to lie: the
values at 1 and 4 % (96 and 99 %) of the reference's own resamples, about four standard errors each way.
"""

import json
import pathlib

import numpy as np
from scipy import stats

RESAMPLES = 100_000
rng = np.random.default_rng(20261122)


def ends(distribution):
    low = np.quantile(distribution, [0.01, 0.04]).tolist()
    high = np.quantile(distribution, [0.96, 0.99]).tolist()
    return {"low": low, "high": high}


def plain(values):
    """scipy's own bootstrap of the median."""
    found = stats.bootstrap((values,), np.median, n_resamples=RESAMPLES, method="percentile", rng=rng, batch=5000)
    return ends(found.bootstrap_distribution)


def ratio(a, b):
    """scipy's own bootstrap of a ratio of medians."""

    def statistic(x, y, axis):
        return np.median(x, axis=axis) / np.median(y, axis=axis)

    found = stats.bootstrap(
        (a, b), statistic, n_resamples=RESAMPLES, method="percentile", rng=rng, vectorized=True, batch=5000
    )
    return ends(found.bootstrap_distribution)


def nested(processes):
    """Processes with replacement, then samples within each: scipy has no such bootstrap."""
    medians = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(processes), size=len(processes))
        medians.append(np.median(np.concatenate([rng.choice(processes[c], len(processes[c])) for c in chosen])))
    return ends(medians)


def main():
    lognormal = np.round(np.exp(rng.normal(3, 0.2, 31)), 3)
    skewed = np.round(rng.gamma(1.5, 4, 24) + 10, 3)
    skewed[5] = 400.0
    few = np.round(rng.normal(50, 2, 5), 3)
    plains = [lognormal, skewed, few]
    processes = [np.round(rng.normal(centre, 0.7, 12), 3) for centre in (20, 21, 19.2, 22.5, 20.3)]
    quantiles = [0, 0.01, 0.25, 1 / 3, 0.5, 0.75, 0.9, 0.99, 1]
    out = {
        "plain": [
            {
                "values": values.tolist(),
                "quantiles": [[q, float(np.quantile(values, q))] for q in quantiles],
                "median": float(np.median(values)),
                "interval": plain(values),
            }
            for values in plains
        ],
        "ratio": [
            {"a": a.tolist(), "b": b.tolist(), "interval": ratio(a, b)} for a, b in ((lognormal, skewed), (skewed, few))
        ],
        "nested": {"processes": [p.tolist() for p in processes], "interval": nested(processes)},
    }
    path = pathlib.Path(__file__).with_name("statistics.json")
    path.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
