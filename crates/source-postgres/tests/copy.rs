//! Copies of tables.

use std::path::Path;

use change_event::disposition::Disposition;
use change_event::evolution::ObservedTable;
use source_postgres::decode::decode;
use source_postgres::relation::{observe_catalog, observe_relation};
use source_postgres::{Message, SourceError, TableCopy, TableName};

use crate::support::{cell_words, next_payload, options, replication, sql, start, stream_of};

/// Every type that prints differently under different settings, and texts that COPY escapes.
const COLUMNS: &str = "id int PRIMARY KEY, b bool, s smallint, l bigint, o oid, f4 real, f8 double precision, \
    n numeric(12, 3), nn numeric, t text, vc varchar(5), bp char(5), na name, ch \"char\", ba bytea, d date, \
    ti time, ts timestamp, tz timestamptz, tt timetz, iv interval, u uuid, j json, jb jsonb, \
    bi bit(3), vb varbit, ip inet, ci cidr, ma macaddr, ar int[], ta text[], r int4range, rc regclass, \
    e public.mood, dom public.positive, co public.pair, mo money";

const ROWS: [&str; 3] = [
    "(1, true, -1, 9223372036854775807, 4294967295, 1.1, 0.1, -12.340, 'NaN', E'a\\tb\\nc\\\\d\\r\\b\\f\\x0B\\\\N', \
     'ü', 'ab', 'n', 'c', '\\x00ff', '0044-03-15 BC', '24:00:00', 'infinity', '2024-02-29 23:59:59.999999+02', \
     '12:00:00+05:30', '1 year 2 mons -3 days 04:05:06.7', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": 1}', \
     '{\"b\":2}', B'101', B'1', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '{1,NULL,3}', \
     E'{\"a b\",\"c\\\\\\\\d\",\"\"}', '[1,5)', 'public.a', 'glad', 7, ROW(1, 'x y'), 12.5)",
    "(2)",
    "(3, false, 0, 0, 0, 'NaN', '-Infinity', 0.000, 1e40, '', '', '', '', '', '', 'infinity', '00:00', \
     '-infinity', '-infinity', '00:00+00', '00:00', '00000000-0000-0000-0000-000000000000', 'null', 'null', \
     B'000', B'', '::1', '::/0', '00:00:00:00:00:00', '{}', '{}', 'empty', 'pg_class', 'sad', 1, ROW(NULL, NULL), 0)",
];

async fn copied(copy: &mut TableCopy) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    while let Some(row) = copy.next_row().await.unwrap() {
        rows.push(row.cells().map(cell_words).collect());
    }
    rows
}

pub(crate) async fn copied_values_have_the_text_of_streamed_ones(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    // Settings of the database that would change every text if they won.
    admin
        .query(
            "ALTER DATABASE postgres SET datestyle = 'German'; ALTER DATABASE postgres SET timezone = 'Asia/Kolkata';
             ALTER DATABASE postgres SET bytea_output = 'escape'; ALTER DATABASE postgres SET extra_float_digits = -3;
             ALTER DATABASE postgres SET intervalstyle = 'iso_8601'; ALTER DATABASE postgres SET search_path = 'public';
             CREATE TYPE public.mood AS ENUM ('sad', 'glad'); CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
             CREATE TYPE public.pair AS (a int, b text)",
        )
        .await
        .unwrap();
    for table in ["a", "b"] {
        let computed = "g int GENERATED ALWAYS AS (id * 2) STORED";
        admin
            .query(&format!(
                "CREATE TABLE public.{table} ({COLUMNS}, {computed})"
            ))
            .await
            .unwrap();
    }
    let mut stream = stream_of(&server, "public.a, public.b").await;
    for row in ROWS {
        admin
            .query(&format!("INSERT INTO public.a VALUES {row}"))
            .await
            .unwrap();
    }
    let mut exporting = replication(&server).await;
    let slot = exporting.create_slot("t").await.unwrap();
    let name = TableName::new("public", "a");
    let mut copy = TableCopy::begin(&options(&server), &slot.snapshot, &name)
        .await
        .unwrap();
    let rows = copied(&mut copy).await;
    assert_eq!((rows.len(), copy.row_count()), (3, 3));
    assert!(
        copied(&mut copy).await.is_empty(),
        "after the end is the end"
    );

    let mut streamed: Vec<Vec<String>> = Vec::new();
    let mut shape: Option<ObservedTable> = None;
    while streamed.len() < 3 {
        let payload = next_payload(&mut stream).await;
        match decode(&payload).unwrap() {
            Message::Relation(relation) => {
                shape = Some(observe_relation(&relation, Some(copy.table()), None, false));
            }
            Message::Insert { new, .. } => streamed.push(new.cells().map(cell_words).collect()),
            _ => {}
        }
    }
    assert_eq!(rows, streamed);
    assert_eq!(
        Some(observe_catalog(copy.table())),
        shape,
        "both show the same shape"
    );
    let text = |row: usize, column: &str| {
        let names: Vec<&str> = copy
            .table()
            .live_columns()
            .map(|c| c.name.as_str())
            .collect();
        rows[row][names.iter().position(|name| *name == column).unwrap()].as_str()
    };
    assert_eq!(text(0, "t"), "a\tb\nc\\d\r\u{8}\u{c}\u{b}\\N");
    assert_eq!(text(0, "tz"), "2024-02-29 21:59:59.999999+00");
    assert_eq!(
        (text(0, "d"), text(0, "ti"), text(0, "ts")),
        ("0044-03-15 BC", "24:00:00", "infinity")
    );
    assert_eq!(
        (text(0, "f8"), text(0, "ba"), text(0, "n")),
        ("0.1", "\\x00ff", "-12.340")
    );
    assert_eq!(
        (text(0, "rc"), text(1, "t"), text(2, "t")),
        ("public.a", "null", "")
    );
}

pub(crate) async fn copy_sees_its_snapshot_and_refuses_a_rewritten_table(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query(
            "CREATE TABLE public.a (id int PRIMARY KEY); INSERT INTO public.a SELECT generate_series(1, 5000);
             CREATE TABLE public.child () INHERITS (public.a); INSERT INTO public.child VALUES (9001);
             CREATE TABLE public.r (id int PRIMARY KEY, v int); INSERT INTO public.r VALUES (1, 1);
             CREATE TABLE public.n (id int PRIMARY KEY, v int, w int);
             CREATE TABLE public.p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (10);
             CREATE TABLE public.p2 PARTITION OF public.p FOR VALUES FROM (10) TO (20);
             INSERT INTO public.p VALUES (1), (11); CREATE PUBLICATION p",
        )
        .await
        .unwrap();
    let mut exporting = replication(&server).await;
    let slot = exporting.create_slot("s").await.unwrap();
    admin
        .query("DELETE FROM public.a WHERE id <= 4000; INSERT INTO public.a VALUES (7000)")
        .await
        .unwrap();
    let begin = async |table: &str| {
        TableCopy::begin(
            &options(&server),
            &slot.snapshot,
            &TableName::new("public", table),
        )
        .await
    };
    let mut copy = begin("a").await.unwrap();
    assert_eq!(copied(&mut copy).await.len(), 5000);
    let mut copy = begin("p").await.unwrap();
    assert_eq!(copied(&mut copy).await, [["1"], ["11"]]);
    drop(copy);

    for change in [
        "ALTER TABLE public.r ALTER v TYPE bigint",
        "TRUNCATE public.p1",
        "ALTER TABLE public.n RENAME v TO x",
        "ALTER TABLE public.n RENAME w TO v",
        "ALTER TABLE public.n RENAME x TO w",
        "CREATE TABLE public.p3 PARTITION OF public.p FOR VALUES FROM (20) TO (30)",
    ] {
        admin.query(change).await.unwrap();
    }
    for table in ["r", "p", "n"] {
        let error = begin(table).await.unwrap_err();
        assert!(
            matches!(error, SourceError::TableChanged { .. }),
            "{error:?}"
        );
        assert_eq!(error.disposition(), Disposition::Refresh);
    }
    let error = begin("nothing").await.unwrap_err();
    assert!(
        matches!(error, SourceError::TableMissing { .. }),
        "{error:?}"
    );
    exporting.identify_system().await.unwrap();
    let error = begin("a").await.unwrap_err();
    assert!(
        matches!(error, SourceError::SnapshotGone { .. }),
        "{error:?}"
    );
}
