"""Transactions of many changes in one statement each, so that a workload of thousands of changes a second costs little.

The server makes the rows (`generate_series`); what is drawn here is which rows and how many. The kinds are those of an
application's nightly jobs: loads, re-pricing, archiving, renumbering, and large transactions that are given up.
"""

from __future__ import annotations

from .workload import PRODUCTS, SESSIONS, Session, Shopper

# Rows of one statement.
ROWS = (60, 240)
# Above every number that single transactions take.
FIRST_NUMBER = 1_000_000_000
NUMBERS_OF_A_SESSION = 200_000_000


class BulkShopper(Shopper):
    """A shopper most of whose changes come in bulk; the single transactions stay in the mix."""

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(seed, number)
        self._next = FIRST_NUMBER + number * NUMBERS_OF_A_SESSION
        self._loads: list[tuple[int, int]] = []
        self._audited = (0, 0)
        self.kinds = (
            *self.kinds,
            (self.load, 14),
            (self.restock, 12),
            (self.advance, 12),
            (self.crawl, 8),
            (self.renumber, 4),
            (self.archive, 5),
            (self.season, 4),
            (self.greet, 6),
            (self.journal, 4),
            (self.given_up, 2),
        )

    def _run(self, session: Session, sql: str, *values: object) -> int:
        return max(session.execute(sql.encode(), values).rowcount, 0)

    def _take(self) -> tuple[int, int]:
        """New numbers, from and to."""
        first = self._next
        self._next += self.random.randrange(*ROWS)
        return first, self._next - 1

    def load(self, session: Session) -> int:
        """Orders with two lines each."""
        first, last = self._take()
        self._loads.append((first, last))
        orders = self._run(
            session,
            "INSERT INTO orders SELECT i, 1 + i %% 5000, clock_timestamp(), i %% 977 * 1.0625, 'open', "
            "CASE i %% 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'note ' || i END, i %% 90 * interval '1 hour', i / 7.0 "
            "FROM generate_series(%s::bigint, %s) i",
            first,
            last,
        )
        lines = self._run(
            session,
            "INSERT INTO order_line "
            "SELECT i, n, ('00000000-0000-4000-8000-' || lpad(to_hex(1 + i %% 399), 12, '0'))::uuid, 1 + i %% 9, "
            "i %% 1000 + 0.99, i / 3.0 FROM generate_series(%s::bigint, %s) i, generate_series(1, 2) n",
            first,
            last,
        )
        return orders + lines

    def restock(self, session: Session) -> int:
        """A part of the session's warehouse."""
        return self._run(
            session,
            "UPDATE inventory SET on_hand = on_hand + 3, counted_at = clock_timestamp() "
            "WHERE warehouse = %s AND right(sku::text, 1) = ANY (%s)",
            self.number + 1,
            self.random.sample("0123456789abcdef", 6),
        )

    def _picked(self) -> tuple[int, int] | None:
        return self._loads[self.random.randrange(len(self._loads))] if self._loads else None

    def advance(self, session: Session) -> int:
        """Moves a load's orders on, and re-prices their lines."""
        if (load := self._picked()) is None:
            return self.load(session)
        state = self.random.choice(("paid", "packed", "sent"))
        orders = self._run(session, "UPDATE orders SET state = %s WHERE id BETWEEN %s AND %s", state, *load)
        lines = self._run(
            session, "UPDATE order_line SET unit_price = unit_price + 0.01 WHERE order_id BETWEEN %s AND %s", *load
        )
        return orders + lines

    def crawl(self, session: Session) -> int:
        """Page views of a robot: rows without a key."""
        first, last = self._take()
        return self._run(
            session,
            "INSERT INTO page_view SELECT clock_timestamp(), '/robot/' || i %% 10, -i, i %% 50 * interval '1 ms' "
            "FROM generate_series(%s::bigint, %s) i",
            first,
            last,
        )

    def renumber(self, session: Session) -> int:
        """Moves a load's orders to other keys: each is a delete and an insert."""
        if (load := self._picked()) is None:
            return self.load(session)
        self._loads.remove(load)
        lines = self._run(session, "DELETE FROM order_line WHERE order_id BETWEEN %s AND %s", *load)
        first, last = self._take()
        while last - first < load[1] - load[0]:
            last = self._take()[1]
        moved = self._run(
            session, "UPDATE orders SET id = id + %s WHERE id BETWEEN %s AND %s", first - load[0], load[0], load[1]
        )
        self._loads.append((first, first + load[1] - load[0]))
        return lines + 2 * moved

    def archive(self, session: Session) -> int:
        """Deletes the oldest load."""
        if len(self._loads) < 20:
            return self.load(session)
        load = self._loads.pop(0)
        lines = self._run(session, "DELETE FROM order_line WHERE order_id BETWEEN %s AND %s", *load)
        return lines + self._run(session, "DELETE FROM orders WHERE id BETWEEN %s AND %s", *load)

    def season(self, session: Session) -> int:
        """Re-prices the session's products, whose descriptions the log leaves out; some get a new description."""
        numbers = self.random.sample(range(1, PRODUCTS // SESSIONS), 60)
        skus = [f"00000000-0000-4000-8000-{number * SESSIONS + self.number:012x}" for number in numbers]
        changed = self._run(
            session, "UPDATE product SET rating = rating / 3, weight = weight * 1.1 WHERE sku = ANY (%s::uuid[])", skus
        )
        return changed + self._run(
            session, "UPDATE product SET description = reverse(description) WHERE sku = ANY (%s::uuid[])", skus[:3]
        )

    def greet(self, session: Session) -> int:
        """Touches some of the session's customers."""
        return self._run(
            session,
            "UPDATE customer SET last_seen = clock_timestamp(), credit = credit + 1 "
            "WHERE id <= 5000 AND id %% %s = %s AND id %% 41 = %s",
            SESSIONS,
            self.number,
            self.random.randrange(41),
        )

    def journal(self, session: Session) -> int:
        """Rows of the table that logs whole old rows: inserted, then changed, then deleted by the next."""
        deleted = self._run(session, "DELETE FROM audit WHERE id BETWEEN %s AND %s", *self._audited)
        first, last = self._take()
        self._audited = (first, last)
        inserted = self._run(
            session,
            "INSERT INTO audit SELECT i, clock_timestamp(), 'robot', 'bulk', repeat(md5(i::text), 4) "
            "FROM generate_series(%s::bigint, %s) i",
            first,
            last,
        )
        changed = self._run(session, "UPDATE audit SET actor = NULL WHERE id BETWEEN %s AND %s", first, last)
        return deleted + inserted + changed

    def given_up(self, session: Session) -> int:
        """A load that is rolled back: part of it to a savepoint, the rest as a whole."""
        session.execute("SAVEPOINT doubt")
        loads = len(self._loads)
        self.load(session)
        session.execute("ROLLBACK TO SAVEPOINT doubt")
        self.load(session)
        del self._loads[loads:]
        session.rollback()
        return 0
