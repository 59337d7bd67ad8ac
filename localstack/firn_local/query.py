"""`./dev query`: SQL over the lake of the running, or the last, demo, by DuckDB; each lake table is a view."""

from __future__ import annotations

import sys

from .lake import Lake, connect_duckdb, scan_sql
from .processes import Supervisor
from .runs import Run
from .services import Ministack

CELL_WIDTH_MAX = 60


def query(sql: str) -> int:
    """Prints the answer as a table."""
    run = Run.current()
    facts = run.facts()
    if "bucket" not in facts:
        raise SystemExit("dev: the last run had no lake; start one with ./dev demo")
    if run.script_pid() is not None:
        return _answer(sql, Lake(facts["endpoint"], facts["bucket"], facts["database"]), facts["endpoint"])
    later = Run.beside(run)
    with Supervisor(later.run_id, later.folder) as supervisor:
        ministack = Ministack(supervisor, run.folder / "cloud")
        ministack.start()
        return _answer(sql, Lake(ministack.endpoint, facts["bucket"], facts["database"]), ministack.endpoint)


def _answer(sql: str, lake: Lake, endpoint: str) -> int:
    with connect_duckdb(endpoint) as connection:
        for table in lake.tables().values():
            connection.execute(f'CREATE VIEW "{table.lake_name}" AS SELECT * FROM {scan_sql(table.metadata_location)}')
        connection.execute(sql)
        names = [column[0] for column in connection.description or []]
        rows = [[_cell(value) for value in row] for row in connection.fetchall()]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in [names, ["-" * width for width in widths], *rows]:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{len(rows)} rows", file=sys.stderr)
    return 0


def _cell(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= CELL_WIDTH_MAX else f"{text[: CELL_WIDTH_MAX - 1]}…"
