"""Which terms carry a mean, and does a site play a variable's part? Cumulants and interchanges, drawn."""

from __future__ import annotations

import numpy as np

from scrubjay.attribution.cumulants import Cumulants
from scrubjay.reporting.words import listed
from scrubjay.scrubbing.interchange import Interchange
from scrubjay.viz import Figure, Section, bars, table

_MOST_BARS = 24


def cumulants_section(found: Cumulants) -> Section:
    """Return the section of a mean by cumulants: the largest terms as bars, what each order carries and what was dropped as a table."""
    largest = found.top(_MOST_BARS)
    many = (
        "All terms" if len(largest) == len(found.terms) else f"The {len(largest)} largest of {len(found.terms)} terms"
    )
    title = f"{found.name}, by cumulants"
    caption = f"{many}. E[...] is a mean, kappa(...) what its factors carry by varying together over {found.facts['rows']} rows."
    chart = bars([name for name, _ in largest], np.array([value for _, value in largest]), title=title)
    rows = [[f"order {order}", value] for order, value in found.by_order().items()]
    rows += [[f"dropped: more than {found.order} together", found.dropped], ["mean", found.total]]
    first = listed([f"{name} ({value:+.2f})" for name, value in found.top(3)])
    finding = f"The mean is {found.total:+.2f} ± {found.standard_error:.2f}; the largest terms are {first}. Dropped: {found.dropped:+.2f}."
    return Section(title, finding, (Figure(chart, caption), table(["cumulants", "sum"], rows, places=4)))


def interchange_section(found: Interchange) -> Section:
    """Return the section of an interchange: its accuracy beside what is right without it."""
    names = [
        "interchanged",
        "where the answer changes",
        "network as it is",
        "one constant answer",
        "causal model, nothing interchanged",
    ]
    values = [found.accuracy, found.changed_accuracy, found.unpatched, found.majority, found.task_accuracy]
    errors = np.array([found.standard_error, *[0.0] * 4])
    where = listed([f"{name} at {site}" for name, site in found.sites.items()])
    chart = bars(
        names, np.array(values), errors, f"Interchange of {where}", "share right", reference_lines={"all right": 1.0}
    )
    caption = f"{len(found.expected)} pairs of data; the causal model's answer changes on {found.changed:.0%} of them."
    verdict = found.verdict[0].upper() + found.verdict[1:]
    return Section(f"Interchange of {where}", f"{verdict}.", (Figure(chart, caption),))
