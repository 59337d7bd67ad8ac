"""Whether two readers that share no code see the same table: row counts, nulls, least and greatest of every column."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from .lake import scan_sql
from .render import plain_values

Facts = dict[str, tuple[int, object, object]]


def by_arrow(content: pa.Table) -> Facts:
    """Count, least and greatest of every column without parts, as PyIceberg read them."""
    facts: Facts = {}
    for name in content.column_names:
        column = content[name]
        least, most = None, None
        if not pa.types.is_nested(column.type):
            values = [value for value in plain_values(column) if value is not None and value == value]
            least, most = min(values, default=None), max(values, default=None)
        facts[name] = (len(column) - column.null_count, least, most)
    return facts


def by_duckdb(connection: duckdb.DuckDBPyConnection, location: str) -> tuple[int, Facts]:
    """Row count and the same facts, by DuckDB."""
    source = scan_sql(location)
    described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    words = ["count(*)"]
    for name, kind, *_rest in described:
        quoted = '"' + name.replace('"', '""') + '"'
        words.append(f"count({quoted})")
        if kind.endswith("]") or kind.startswith(("MAP", "STRUCT")):
            continue
        number = f"isnan({quoted})" if kind in ("FLOAT", "DOUBLE") else "false"
        words += [f"{best}({quoted}) FILTER (WHERE NOT {number})" for best in ("min", "max")]
    row = connection.execute(f"SELECT {', '.join(words)} FROM {source}").to_arrow_table()
    cells = [plain_values(row.column(index))[0] for index in range(row.num_columns)]
    rows, cells = int(str(cells[0])), cells[1:]
    facts: Facts = {}
    for name, kind, *_rest in described:
        if kind.endswith("]") or kind.startswith(("MAP", "STRUCT")):
            facts[name], cells = (int(str(cells[0])), None, None), cells[1:]
        else:
            facts[name], cells = (int(str(cells[0])), cells[1], cells[2]), cells[3:]
    return rows, facts


def disagreements(content: pa.Table, connection: duckdb.DuckDBPyConnection, location: str) -> list[str]:
    """What the two readers see differently; empty if nothing."""
    rows, theirs = by_duckdb(connection, location)
    found = [] if rows == len(content) else [f"PyIceberg reads {len(content)} rows, DuckDB {rows}"]
    ours = by_arrow(content)
    if list(ours) != list(theirs):
        return [*found, "the readers see different columns"]
    for name, facts in ours.items():
        if not all(_same(left, right) for left, right in zip(facts, theirs[name], strict=True)):
            found.append(f"column {name}: count, least or greatest differ")
    return found


def _same(left: object, right: object) -> bool:
    # DuckDB hands a UUID out as text.
    if isinstance(left, bytes) and isinstance(right, str):
        return left.hex() == right.replace("-", "")
    return left == right
