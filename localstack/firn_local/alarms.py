"""What the functions would have raised an alarm about: gaps, halts, records set aside. A sound run has none of them.

Source: the functions' metrics in embedded metric format, which names a counter only when it moved.
"""

from __future__ import annotations

from .deploy import FUNCTIONS, client

COUNTERS = ("gaps_total", "halts_total", "quarantined_total")


def alarms(endpoint: str) -> list[str]:
    """In words, with the number of log lines; empty if nothing was wrong."""
    logs = client("logs", endpoint)
    groups = {group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]}
    found = []
    for name in FUNCTIONS:
        group = f"/aws/lambda/firn-{name}"
        if group not in groups:
            continue
        for counter in COUNTERS:
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, filterPattern=f'"{counter}"')
            if count := sum(len(page["events"]) for page in pages):
                found.append(f"firn-{name}: {counter} in {count} invocations")
    return found
