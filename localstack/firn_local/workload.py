"""A seeded, continuous workload on the demo's shop: what applications do to a database, and what they should not.

Several sessions write at once, so that transactions overlap in the log. Always holds: the same seed gives the same
statements in each session; keys of two sessions never meet, so no session waits for another for long.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg

from . import extremes, special

Session = psycopg.Connection[tuple[object, ...]]
PRODUCTS = 400
CUSTOMERS = 5000
SESSIONS = 2
STATES = ("open", "paid", "packed", "sent", "returned")
PATHS = ("/", "/search", "/product", "/cart", "/pay")


def create_shop(dsn: str) -> None:
    """Creates the tables and what stands in them before anybody looks."""
    with psycopg.connect(dsn) as session:
        session.execute((Path(__file__).with_name("shop.sql")).read_bytes())
        session.execute(_PRELOAD)
        for insert, values in extremes.statements(0):
            session.execute(insert.encode(), values)


_PRELOAD = f"""
INSERT INTO customer
SELECT i, 'c' || i || '@example.org', CASE WHEN i % 7 > 0 THEN 'Customer ' || i END, 'regular', i % 50 = 0, i / 8.0,
       date '2020-01-01' + (i % 2000)::int, timestamptz '2026-01-01 00:00:00Z' + i * interval '1.000001 second',
       jsonb_build_object('n', i, 'langs', jsonb_build_array('de', 'en')), ARRAY['t' || i % 5, NULL],
       ('10.' || i % 200 || '.0.' || i % 250)::inet
FROM generate_series(1, {CUSTOMERS}) i;
INSERT INTO product
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'Product ' || i, i + 0.99, i / 3.0, 5.0 / i,
       repeat(md5(i::text), 100), decode(md5(i::text), 'hex'), '{{"colour": "blue"}}', int4range(i, i + 10),
       tstzrange('2026-01-01', NULL), '08:30', timestamp '2025-05-05 05:05:05.5'
FROM generate_series(1, {PRODUCTS}) i;
INSERT INTO inventory SELECT sku, w, 100, '2026-01-01 00:00:00Z' FROM product, generate_series(1, 4) w;
INSERT INTO orders
SELECT i, 1 + i % {CUSTOMERS}, '2026-01-01 00:00:00Z', i * 1.5, 'sent', NULL, interval '1 mon -3 days', 0.1
FROM generate_series(1, 4000) i;
INSERT INTO order_line
SELECT i, 1, ('00000000-0000-4000-8000-' || lpad(to_hex(1 + i % {PRODUCTS}), 12, '0'))::uuid, 2, 9.99, 0.19
FROM generate_series(1, 4000) i;
INSERT INTO page_view SELECT timestamp '2026-01-01' + i * interval '1 s', '/', i, '1 s' FROM generate_series(1, 500) i;
INSERT INTO cart SELECT 'old-' || i, i, '[]', NULL FROM generate_series(1, 300) i;
INSERT INTO "Gift Card" SELECT 'G-' || i, i / 8.0, 'é' || i, 'mine' FROM generate_series(1, 100) i;
"""


def sku(number: int) -> uuid.UUID:
    """The product with a number."""
    return uuid.UUID(f"00000000-0000-4000-8000-{number:012x}")


class Shopper:
    """One session's transactions; each method is one kind, and gives how many row changes it made."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(f"{seed}/{number}")
        self.number = number
        self.next_order = 1_000_000 * (number + 1)
        self.next_audit = 1_000_000 * (number + 1)
        self.next_customer = 1_000_000 * (number + 1)
        self.orders: list[tuple[int, int]] = []
        self.kinds: tuple[tuple[Callable[[Session], int], int], ...] = (
            (self.order, 40),
            (self.progress, 25),
            (self.browse, 10),
            (self.reprice, 8),
            (self.cart, 8),
            (self.customer, 5),
            (self.change_key, 3),
            (self.second_thoughts, 5),
            (self.cancel, 4),
            (self.audit_later, 3),
            (self.gift, 2),
        )

    def pick(self) -> Callable[[Session], int]:
        """The next kind of transaction."""
        kinds, weights = zip(*self.kinds, strict=True)
        return self.random.choices(kinds, weights)[0]

    def _own(self, most: int) -> int:
        """A number up to `most` that no other session takes."""
        return self.random.randrange(1, most // SESSIONS) * SESSIONS + self.number

    def order(self, session: Session) -> int:
        """An order over six tables."""
        draw, order = self.random, self.next_order
        self.next_order += 1
        lines = [
            (
                order,
                line,
                sku(draw.randrange(1, PRODUCTS)),
                draw.randrange(1, 9),
                f"{draw.randrange(100, 99999) / 100:.2f}",
                draw.random(),
            )
            for line in range(1, draw.randrange(2, 7))
        ]
        self.orders.append((order, len(lines)))
        with session.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orders VALUES (%s, %s, clock_timestamp(), %s, 'open', %s, %s::interval, %s)",
                (
                    order,
                    self._own(CUSTOMERS),
                    f"{draw.random() * 1000:.4f}",
                    draw.choice((None, "ring twice", "")),
                    f"{draw.randrange(1, 99)} hours",
                    draw.random(),
                ),
            )
            cursor.executemany("INSERT INTO order_line VALUES (%s, %s, %s, %s, %s, %s)", lines)
            cursor.execute(
                "INSERT INTO payment VALUES (%s, %s, %s, 'EUR', clock_timestamp(), %s, %s)",
                (
                    uuid.UUID(int=draw.getrandbits(128), version=4),
                    order,
                    f"{draw.random() * 1000:.{draw.randrange(0, 9)}f}",
                    draw.choice(("card", "cash", None)),
                    '{"ok":  true}',
                ),
            )
            cursor.executemany(
                "UPDATE inventory SET on_hand = on_hand - %s, counted_at = now() WHERE warehouse = %s AND sku = %s",
                [(line[3], self.number + 1, line[2]) for line in sorted(lines, key=lambda line: line[2])],
            )
            self._audit(cursor, f"order {order}", None)
        return 3 + 2 * len(lines)

    def _audit(self, cursor: psycopg.Cursor[tuple[object, ...]], action: str, detail: str | None) -> None:
        self.next_audit += 1
        cursor.execute(
            "INSERT INTO audit VALUES (%s, clock_timestamp(), %s, %s, %s)",
            (self.next_audit, f"session {self.number}", action, detail or self.random.randbytes(1500).hex()),
        )

    def progress(self, session: Session) -> int:
        """Moves a few orders on, and raises the price of what is in them."""
        if not self.orders:
            return self.order(session)
        changed = 0
        for order, lines in self.random.sample(self.orders, min(4, len(self.orders))):
            state = self.random.choice(STATES)
            session.execute("UPDATE orders SET state = %s WHERE id = %s", (state, order))
            session.execute("UPDATE order_line SET amount = amount + 1 WHERE order_id = %s", (order,))
            changed += 1 + lines
        return changed

    def browse(self, session: Session) -> int:
        """Page views: rows without a key, one of them changed and one removed now and then."""
        draw = self.random
        rows = [(draw.choice(PATHS), self._own(CUSTOMERS), f"{draw.random():.3f} s") for _row in range(8)]
        with session.cursor() as cursor:
            cursor.executemany("INSERT INTO page_view VALUES (clock_timestamp(), %s, %s, %s)", rows)
            if draw.random() < 0.2:
                mine = "ctid IN (SELECT ctid FROM page_view WHERE customer_id = %s LIMIT 1)"
                cursor.execute(f"UPDATE page_view SET path = '/changed' WHERE {mine}".encode(), (rows[0][1],))
                cursor.execute(f"DELETE FROM page_view WHERE {mine}".encode(), (rows[1][1],))
        return 8

    def reprice(self, session: Session) -> int:
        """Changes products beside their large description, which the log then leaves out; at times it too."""
        number = self._own(PRODUCTS)
        session.execute(
            "UPDATE product SET price = price + 0.01, rating = rating / 3, weight = weight * 1.1 WHERE sku = %s",
            (sku(number),),
        )
        if self.random.random() < 0.3:
            session.execute(
                "UPDATE product SET description = %s, picture = NULL WHERE sku = %s",
                (self.random.randbytes(2500).hex(), sku(number)),
            )
        return 1

    def cart(self, session: Session) -> int:
        """Fills a cart and its items."""
        name = f"s{self.number}-{self.random.getrandbits(40):x}"
        session.execute(
            "INSERT INTO cart VALUES (%s, %s, '[1, {\"a\": null}]', now() + interval '1 day')",
            (name, self._own(CUSTOMERS)),
        )
        items = [(name, sku(number), 1) for number in self.random.sample(range(1, PRODUCTS), 5)]
        with session.cursor() as cursor:
            cursor.executemany("INSERT INTO cart_item VALUES (%s, %s, %s)", items)
        return 6

    def customer(self, session: Session) -> int:
        """A new customer, and news of an old one."""
        self.next_customer += 1
        session.execute(
            "INSERT INTO customer (id, email, name, tags, address) VALUES (%s, %s, %s, %s, '::1')",
            (self.next_customer, f"n{self.next_customer}@example.org", 'O\'Neil "the" \\ Ö', ["a,b", '"', "", None]),
        )
        session.execute(
            "UPDATE customer SET last_seen = now(), credit = credit - 1, vip = NOT vip WHERE id = %s",
            (self._own(CUSTOMERS),),
        )
        return 2

    def change_key(self, session: Session) -> int:
        """Moves a row to another key, in a table with a key of one column and in one with two."""
        order, _lines = self.orders.pop(self.random.randrange(len(self.orders))) if self.orders else (0, 0)
        self.next_order += 1
        session.execute("UPDATE orders SET id = %s WHERE id = %s", (self.next_order, order))
        session.execute(
            "UPDATE order_line SET order_id = %s WHERE order_id = %s AND line_no = 1", (self.next_order, order)
        )
        session.execute("UPDATE audit SET id = -id WHERE id = %s", (self.next_audit,))
        return 3

    def second_thoughts(self, session: Session) -> int:
        """A savepoint rolled back between changes that stay, and at times a whole transaction that does not."""
        keep = self.random.random() < 0.7
        self.next_customer += 1
        session.execute("INSERT INTO customer (id, email) VALUES (%s, 'kept')", (self.next_customer,))
        session.execute("SAVEPOINT doubt")
        session.execute("UPDATE customer SET email = 'never seen' WHERE id = %s", (self.next_customer,))
        session.execute("DELETE FROM cart_item WHERE session LIKE 's%%' AND amount = %s", (self.number + 7,))
        session.execute("ROLLBACK TO SAVEPOINT doubt")
        session.execute("UPDATE customer SET name = 'sure' WHERE id = %s", (self.next_customer,))
        if not keep:
            session.rollback()
            return 0
        return 2

    def cancel(self, session: Session) -> int:
        """Deletes an order and its lines."""
        if not self.orders:
            return 0
        order, lines = self.orders.pop(self.random.randrange(len(self.orders)))
        session.execute("DELETE FROM order_line WHERE order_id = %s", (order,))
        session.execute("DELETE FROM orders WHERE id = %s", (order,))
        return 1 + lines

    def audit_later(self, session: Session) -> int:
        """Changes and deletes in the table that logs whole old rows."""
        session.execute("UPDATE audit SET actor = NULL WHERE id = %s", (self.next_audit,))
        session.execute("DELETE FROM audit WHERE id = %s", (self.next_audit - 1,))
        return 2

    def gift(self, session: Session) -> int:
        """A table with awkward names."""
        card = f"{self.number}-{self.random.getrandbits(30)}"
        session.execute('INSERT INTO "Gift Card" VALUES (%s, %s, %s, NULL)', (card, "12345.678", "naïve ☃"))
        session.execute('UPDATE "Gift Card" SET "select" = NULL WHERE "Card No" = %s', (card,))
        return 2


class Workload:
    """Runs the sessions until it is stopped; the rate is changes per second over all of them."""

    def __init__(self, dsn: str, seed: int, rate: float, shopper: type[Shopper] = Shopper) -> None:
        self._dsn, self._seed, self._rate, self._shopper = dsn, seed, rate, shopper
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.changes = 0
        self.schema_changes = 0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Starts the writing sessions."""
        for number in range(SESSIONS):
            self._spawn(self._shop, self._shopper(self._seed, number))

    def start_special(self, interval_seconds: float) -> None:
        """Starts what happens seldom: schema changes, a TRUNCATE, a row too large for a record, extremes."""
        self._spawn(self._special, interval_seconds)

    def stop(self) -> None:
        """Lets every session finish its transaction and end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _spawn(self, body: Callable[..., None], *arguments: object) -> None:
        def guarded() -> None:
            try:
                body(*arguments)
            except BaseException as error:
                self.failure = self.failure or error

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _count(self, changes: int) -> None:
        with self._lock:
            self.changes += changes

    def _shop(self, shopper: Shopper) -> None:
        pace = self._rate / SESSIONS
        with psycopg.connect(self._dsn) as session:
            begin, done = time.monotonic(), 0
            while not self._stopping.is_set():
                try:
                    changed = shopper.pick()(session)
                    session.commit()
                except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                    session.rollback()
                    continue
                self._count(changed)
                done += changed
                ahead = done / pace - (time.monotonic() - begin)
                if ahead > 0:
                    self._stopping.wait(ahead)

    def _special(self, interval_seconds: float) -> None:
        rounds = special.steps(self._seed)
        with psycopg.connect(self._dsn) as session:
            while not self._stopping.wait(interval_seconds):
                for statement in next(rounds):
                    self._count(max(session.execute(statement.sql.encode(), statement.values).rowcount, 0))
                    self.schema_changes += statement.sql.startswith("ALTER")
                session.commit()
