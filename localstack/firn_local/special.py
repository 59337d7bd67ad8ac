"""What happens seldom: schema changes, a TRUNCATE, a row too large for a record, extremes of types, and late tables,
which come while the agent streams.

A round has six steps. Each schema change is followed by an UPDATE that writes rows of the new shape.

Always holds: changes of a late table stand last in their transaction. Before the agent has taken it in they are not in
its stream, and must not shift the numbers of those that are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import extremes

STEPS_A_ROUND = 6
# A topic, a mapping and a lake table each: enough to see that several come.
LATE_TABLES_MAX = 3
LATE_ROWS = 3000
# Past Kafka's record limit of 4 MB: it travels by reference.
DOCUMENT_BYTES = 5_000_000


@dataclass(frozen=True)
class Statement:
    """SQL and the values for its marks."""

    sql: str
    values: Sequence[object] | None = None


def steps(seed: int) -> Iterator[list[Statement]]:
    """Endless: the statements of one transaction after the other."""
    draw = random.Random(f"{seed}/special")
    for number in range(1, 1 << 30):
        steps_of_round = _round(number, draw.randbytes(DOCUMENT_BYTES // 2).hex())
        for step, statements in enumerate(steps_of_round):
            yield [*statements, *late(f"late_{number}", step)] if number <= LATE_TABLES_MAX else statements


def is_late(lake_table: str) -> bool:
    """Whether it is the lake table of a late one: such a table is written for a round, and is quiet for ever after."""
    return lake_table.startswith("public__late_")


def late(table: str, step: int) -> list[Statement]:
    """A table that comes with rows at step 0, and is changed at each later one; one of its rows changes its key."""
    if step == 0:
        return [
            Statement(f"CREATE TABLE {table} (id bigint PRIMARY KEY, note text, amount numeric(12, 3))"),
            Statement(f"INSERT INTO {table} SELECT i, 'n' || i, i / 8.0 FROM generate_series(1, {LATE_ROWS}) i"),
        ]
    first_id = 100_000 * step
    return [
        Statement(f"INSERT INTO {table} SELECT i, NULL, i FROM generate_series({first_id}, {first_id + 99}) i"),
        Statement(f"UPDATE {table} SET note = 'step {step}', amount = -amount WHERE id % 7 = {step % 7}"),
        Statement(f"UPDATE {table} SET id = -id WHERE id = {first_id}"),
        Statement(f"DELETE FROM {table} WHERE id IN ({step}, {first_id + 1})"),
    ]


def _round(number: int, body: str) -> Iterator[list[Statement]]:
    first_id, old = 10_000 * number, f"points_{number}"
    new = f"{old}_renamed"
    yield [Statement(f"ALTER TABLE customer ADD COLUMN {old} int DEFAULT 7"), _touch(old, "id % 1000")]
    yield [
        Statement(f"ALTER TABLE customer RENAME COLUMN {old} TO {new}"),
        _touch(new, "8"),
        *(Statement(insert, values) for insert, values in extremes.statements(first_id)),
    ]
    yield [
        Statement(f"ALTER TABLE customer ALTER COLUMN {new} TYPE bigint"),
        _touch(new, "9000000000000 + id"),
        Statement("INSERT INTO document VALUES (%s, %s), (%s, 'short')", (first_id, body, first_id + 1)),
        Statement("UPDATE document SET body = body || '!' WHERE id >= %s", (first_id,)),
    ]
    yield [
        Statement(f"ALTER TABLE customer ALTER COLUMN {new} TYPE text USING 'p' || {new}"),
        _touch(new, "'text ' || id"),
        Statement("TRUNCATE cart, cart_item"),
    ]
    yield [Statement(f"ALTER TABLE customer DROP COLUMN {new}"), _touch("vip", "NOT vip")]
    yield [
        Statement(f"ALTER TABLE inventory ALTER COLUMN on_hand TYPE {'bigint' if number % 2 else 'int'}"),
        Statement(f"ALTER TABLE product ALTER COLUMN price TYPE numeric({10 + number % 20}, 2)"),
        Statement("UPDATE inventory SET on_hand = on_hand + 1 WHERE warehouse = 3 AND sku::text LIKE '%%7'", ()),
        Statement("UPDATE product SET price = price + 1 WHERE sku::text LIKE '%%9'", ()),
    ]


def _touch(column: str, value: str) -> Statement:
    return Statement(f"UPDATE customer SET {column} = {value} WHERE id % 97 = 3 AND id <= 5000")
