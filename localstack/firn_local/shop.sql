-- The demo's database: a small shop, and one table of every type at its extremes.

CREATE TYPE customer_status AS ENUM ('new', 'regular', 'gone', 'with space');
CREATE DOMAIN quantity AS int CHECK (VALUE >= 0);

CREATE TABLE customer (
    id bigint PRIMARY KEY,
    email varchar(120) NOT NULL,
    name text,
    status customer_status NOT NULL DEFAULT 'new',
    vip boolean NOT NULL DEFAULT false,
    credit numeric(12, 2),
    joined date,
    last_seen timestamptz,
    profile jsonb,
    tags text[],
    address inet
);

CREATE TABLE product (
    sku uuid PRIMARY KEY,
    title text NOT NULL,
    price numeric(10, 2) NOT NULL,
    weight real,
    rating double precision,
    description text,                   -- kept out of line, so that most updates leave it unavailable
    picture bytea,
    attributes jsonb,
    sizes int4range,
    on_sale tstzrange,
    opens time,
    launched timestamp
);
ALTER TABLE product ALTER COLUMN description SET STORAGE EXTERNAL;

CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id bigint NOT NULL,
    placed timestamptz NOT NULL,
    total numeric(14, 4) NOT NULL,
    state text NOT NULL,
    note text,
    ship_after interval,
    discount real
);

CREATE TABLE order_line (
    order_id bigint,
    line_no smallint,
    sku uuid NOT NULL,
    amount quantity NOT NULL,
    unit_price numeric(10, 2) NOT NULL,
    tax double precision,
    PRIMARY KEY (order_id, line_no)
);

CREATE TABLE payment (
    id uuid PRIMARY KEY,
    order_id bigint NOT NULL,
    amount numeric NOT NULL,
    currency char(3) NOT NULL,
    paid_at timestamp(3),
    method text,
    gateway json
);

CREATE TABLE inventory (
    sku uuid,
    warehouse int,
    on_hand int NOT NULL,
    counted_at timestamptz,
    PRIMARY KEY (warehouse, sku)
);

CREATE TABLE audit (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text,
    action text NOT NULL,
    detail text                         -- out of line too, but this table logs whole old rows
);
ALTER TABLE audit REPLICA IDENTITY FULL;
ALTER TABLE audit ALTER COLUMN detail SET STORAGE EXTERNAL;

CREATE TABLE page_view (                -- no key at all
    at timestamp NOT NULL,
    path text,
    customer_id bigint,
    took interval
);
ALTER TABLE page_view REPLICA IDENTITY FULL;

CREATE TABLE cart (
    session text PRIMARY KEY,
    customer_id bigint,
    items jsonb,
    expires timestamptz
);

CREATE TABLE cart_item (
    session text,
    sku uuid,
    amount int,
    PRIMARY KEY (session, sku)
);

CREATE TABLE document (
    id int PRIMARY KEY,
    body text
);

CREATE TABLE "Gift Card" (
    "Card No" text PRIMARY KEY,
    "select" numeric(8, 3),
    "ünïcode" text,
    _op text
);

CREATE TABLE extreme (
    id int PRIMARY KEY,
    flag boolean,
    small smallint,
    big bigint,
    number numeric,
    money_amount numeric(38, 10),
    real_value real,
    double_value double precision,
    day date,
    clock time,
    clock_zoned timetz,
    moment timestamp,
    moment_zoned timestamptz,
    span interval,
    words text,
    fixed char(5),
    bytes bytea,
    bits bit varying(20),
    tree json,
    treeb jsonb,
    identifier uuid,
    network cidr,
    hardware macaddr,
    place point,
    numbers int[],
    grid text[][],
    ranges nummultirange,
    lexemes tsvector,
    status customer_status,
    cash money,
    pointer pg_lsn,
    query xid8
);
