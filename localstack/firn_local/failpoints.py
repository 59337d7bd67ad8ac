"""Where the pipeline's programs let a test make them die, and what brings them to each of these places.

A key is a failpoint's name, or `<function>/<name>` where one function alone shall die there: the three functions share
the failpoints of a commit. `tests/test_failpoints.py` holds the lists against the Rust sources: none is forgotten.
"""

from __future__ import annotations

import re
from pathlib import Path

FUNCTIONS = ("firn-ingest", "firn-commit", "firn-ddl")

# Reached once, on the way to streaming: armed before the first start.
OF_THE_COPY = (
    "agent.before_init_transactions",
    "agent.after_init_transactions",
    "agent.after_epoch_claim",
    "agent.after_copy_claim",
    "agent.after_slot_created",
    "agent.after_schema_put",
    "agent.after_copy_file_put",
    "agent.after_copy_manifest_put",
    "agent.before_announcement_commit",
    "agent.after_announcement_commit",
    "create.before_catalog",
)
# Reached when an agent that streamed starts again: armed, and then the agent is killed.
OF_A_RESTART = (
    "agent.before_init_transactions",
    "agent.after_init_transactions",
    "agent.after_epoch_claim",
)
# Reached when an agent that streamed starts again with more partitions: armed, and then the agent is killed.
OF_A_RAISE = (
    "agent.after_partitions_created",
    "agent.after_map_registered",
    "agent.after_barriers_sent",
    "agent.after_barriers_commit",
)
# Reached when a table comes while the agent streams: armed, and then a table is made.
OF_A_NEW_TABLE = ("agent.after_copy_owed", "agent.after_table_published", "agent.after_copy_manifest_put")
# Reached by the workload: its changes, its ALTERs, its rows too large for a record.
OF_THE_STREAM = (
    "agent.after_schema_put",
    "agent.after_reference_put",
    "agent.after_produce",
    "agent.before_commit",
    "agent.after_commit",
    "agent.after_acknowledge",
    "ingest.after_parquet_put",
    "ingest.before_slot_put",
    "ingest.after_slot_won",
    "ingest.after_inline_combine",
    *(f"{function}/{name}" for function in FUNCTIONS for name in ("commit.before_swap", "commit.after_swap")),
)

_CONSTANT = re.compile(r'^\s*(?:pub(?:\([^)]*\))? )?const (\w+): &str = "([\w.]+)";', re.MULTILINE)
_HIT = re.compile(r"failpoint::hit\(\s*(?:[\w:]+::)?(\w+)\s*\)")


def name_of(key: str) -> str:
    """The failpoint of a key."""
    return key.rpartition("/")[2]


def in_sources(root: Path) -> tuple[set[str], set[str]]:
    """Names of the failpoints that the sources define, and the constants at which they let a process die."""
    defined: dict[str, str] = {}
    hit: set[str] = set()
    for folder in ("capture-agent", "crates", "functions"):
        for path in (root / folder).glob("**/src/**/*.rs"):
            text = path.read_text()
            if path.name == "failpoints.rs":
                defined |= dict(_CONSTANT.findall(text))
            hit |= set(_HIT.findall(text))
    return set(defined.values()), {defined.get(constant, constant) for constant in hit}
