//! The catalog, the publication, and what preflight finds.

use std::collections::BTreeSet;
use std::path::Path;

use source_postgres::types::builtin_type_name;
use source_postgres::{
    CaptureRequest, Catalog, ConnectOptions, ProblemKind, SourceError, TableName, TablePattern,
    preflight,
};
use test_kit::postgres::PostgresOptions;

use crate::support::{catalog, major_version, options, sql, start, start_with};

pub(crate) async fn printed_types_are_those_of_the_catalog(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    let numeric = |precision: i32, scale: i32| (precision << 16 | (scale & 0x7FF)) + 4;
    // Since PostgreSQL 15.
    let odd_scales = major_version(&server).await >= 15;
    let mut checked = 0;
    let types = admin
        .query("SELECT oid FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')")
        .await
        .unwrap();
    for row in &types {
        let oid: u32 = row.parse(0).unwrap();
        let typmods: &[i32] = match oid {
            1700 | 1231 if !odd_scales => &[-1, numeric(10, 2)],
            1700 | 1231 => &[-1, numeric(10, 2), numeric(5, -2), numeric(3, 5)],
            1042 | 1043 | 1014 | 1015 => &[-1, 14],
            1083 | 1114 | 1184 | 1266 | 1186 => &[-1, 3],
            1560 | 1562 => &[-1, 8],
            _ => &[-1],
        };
        for typmod in typmods {
            let Some(ours) = builtin_type_name(oid, *typmod) else {
                continue;
            };
            let theirs = admin
                .query(&format!("SELECT format_type({oid}, {typmod})"))
                .await
                .unwrap();
            assert_eq!(
                Some(ours.as_str()),
                theirs[0].get(0),
                "type {oid} modifier {typmod}"
            );
            checked += 1;
        }
    }
    assert!(checked > 70, "{checked}");
}

pub(crate) async fn publication_holds_exactly_the_tables_asked_for(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query(
            "CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.\"B c\" (id int PRIMARY KEY);
             CREATE TABLE public.r (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE public.r1 PARTITION OF public.r FOR VALUES FROM (0) TO (10);
             CREATE PUBLICATION wide FOR ALL TABLES",
        )
        .await
        .unwrap();
    let [a, b, r] = ["a", "B c", "r"].map(|table| TableName::new("public", table));
    let mut catalog = catalog(&server).await;
    let listed = catalog
        .tables(&[TablePattern::parse("public.*").unwrap()])
        .await
        .unwrap();
    let listed: Vec<&str> = listed
        .iter()
        .map(|table| table.name.table.as_str())
        .collect();
    assert_eq!(listed, ["B c", "a", "r"]);

    let first = catalog
        .ensure_publication("p", &[a.clone(), r.clone()])
        .await
        .unwrap();
    assert!(first.created && first.added == [a.clone(), r.clone()] && first.removed.is_empty());
    let again = catalog
        .ensure_publication("p", &[r.clone(), a.clone()])
        .await
        .unwrap();
    assert_eq!(
        again,
        source_postgres::catalog::PublicationChange::default()
    );
    let moved = catalog
        .ensure_publication("p", &[b.clone(), r.clone()])
        .await
        .unwrap();
    assert_eq!(
        (moved.added, moved.removed),
        (vec![b.clone()], vec![a.clone()])
    );

    // Schemas and filters are there since PostgreSQL 15.
    let knows_filters = major_version(&server).await >= 15;
    let mut filter = "";
    if knows_filters {
        admin
            .query("CREATE PUBLICATION whole FOR TABLES IN SCHEMA public")
            .await
            .unwrap();
        assert!(catalog.publication("whole").await.unwrap().unwrap().wide);
        filter = "WHERE (id > 3)";
    }
    let partial = format!(
        "ALTER PUBLICATION p SET (publish = 'insert');
         ALTER PUBLICATION p SET TABLE public.\"B c\" {filter}, public.r"
    );
    admin.query(&partial).await.unwrap();
    let state = catalog.publication("p").await.unwrap().unwrap();
    assert!(state.filtered == knows_filters && !state.complete);
    assert!(
        catalog
            .ensure_publication("p", &[b.clone(), r.clone()])
            .await
            .unwrap()
            .repaired
    );
    let state = catalog.publication("p").await.unwrap().unwrap();
    assert!(!state.filtered && state.complete && !state.wide);
    assert_eq!(state.tables, BTreeSet::from([b, r]));

    catalog.ensure_publication("p", &[]).await.unwrap();
    assert!(
        catalog
            .publication("p")
            .await
            .unwrap()
            .unwrap()
            .tables
            .is_empty()
    );
    let wide = catalog.ensure_publication("wide", &[a]).await.unwrap_err();
    assert!(
        matches!(wide, SourceError::PublicationTooWide { .. }),
        "{wide:?}"
    );
    assert_eq!(catalog.publication("none").await.unwrap(), None);
}

pub(crate) async fn sound_source_has_no_problem_and_each_flaw_is_one(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query("CREATE TABLE public.good (id int PRIMARY KEY)")
        .await
        .unwrap();
    let request = |tables: &[&str]| CaptureRequest {
        tables: tables
            .iter()
            .map(|text| TablePattern::parse(text).unwrap())
            .collect(),
        slot: "s".to_owned(),
        publication: "p".to_owned(),
    };
    let mut as_admin = catalog(&server).await;
    assert_eq!(
        preflight(&mut as_admin, &request(&["public.*"]))
            .await
            .unwrap(),
        []
    );

    admin
        .query(
            "CREATE TABLE public.keyless (t text); CREATE TABLE public.whole (t text);
             ALTER TABLE public.whole REPLICA IDENTITY FULL;
             CREATE TABLE public.\"Good\" (id int PRIMARY KEY); CREATE UNLOGGED TABLE public.u (id int PRIMARY KEY);
             CREATE TABLE public.late (id int PRIMARY KEY DEFERRABLE);
             CREATE ROLE weak LOGIN; SELECT pg_create_physical_replication_slot('s')",
        )
        .await
        .unwrap();
    let weak = ConnectOptions {
        user: "weak".to_owned(),
        ..options(&server)
    };
    let mut as_weak = Catalog::connect(&weak).await.unwrap();
    let found = preflight(&mut as_weak, &request(&["public.*", "public.nothing"]))
        .await
        .unwrap();
    let has = |kind: ProblemKind, subject: &str| {
        found
            .iter()
            .any(|problem| problem.kind == kind && problem.subject.contains(subject))
    };
    for (kind, subject) in [
        (ProblemKind::ReplicationRight, "weak"),
        (ProblemKind::ReadRight, "public.good"),
        (ProblemKind::PublicationRight, "publication p"),
        (ProblemKind::PublicationRight, "public.good"),
        (ProblemKind::MissingTable, "public.nothing"),
        (ProblemKind::Unlogged, "public.u"),
        (ProblemKind::ReplicaIdentity, "public.keyless"),
        (ProblemKind::ReplicaIdentity, "public.late"),
        (ProblemKind::LakeName, "public.Good, public.good"),
        (ProblemKind::Slot, "slot s"),
    ] {
        assert!(
            has(kind, subject),
            "{kind:?} {subject} is not in {found:#?}"
        );
    }
    assert!(!has(ProblemKind::ReplicaIdentity, "public.whole"));
    assert!(!has(ProblemKind::WalLevel, ""));

    let replica = PostgresOptions::default()
        .setting("wal_level", "replica")
        .setting("max_wal_senders", "0")
        .setting("max_replication_slots", "0");
    let server = start_with(programs, &replica);
    let found = preflight(&mut catalog(&server).await, &request(&[]))
        .await
        .unwrap();
    let kinds: Vec<ProblemKind> = found.iter().map(|problem| problem.kind).collect();
    assert_eq!(
        kinds,
        [
            ProblemKind::WalLevel,
            ProblemKind::NoFreeWalSender,
            ProblemKind::NoFreeSlot
        ]
    );
}
