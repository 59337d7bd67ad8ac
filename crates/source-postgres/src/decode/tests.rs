//! Messages made by hand, byte for byte as the manual lists their fields, and arbitrary bytes.

use proptest::prelude::*;

use super::*;

/// Concatenates the fields of a message.
fn bytes(fields: &[&[u8]]) -> Vec<u8> {
    fields.concat()
}

const OID: [u8; 4] = 16_384_u32.to_be_bytes();
const LSN: [u8; 8] = 0x16_B374_D848_u64.to_be_bytes();
const LATER: [u8; 8] = 0x16_B374_D878_u64.to_be_bytes();
/// One second after PostgreSQL's epoch.
const TIME: [u8; 8] = 1_000_000_i64.to_be_bytes();
/// `(NULL, unavailable, 'ü', '')`.
const TUPLE: &[u8] = b"\0\x04nut\0\0\0\x02\xC3\xBCt\0\0\0\0";

fn cells(tuple: Tuple<'_>) -> Vec<Cell<'_>> {
    assert_eq!(tuple.cells().len(), tuple.column_count());
    tuple.cells().collect()
}

fn tuple_cells() -> Vec<Cell<'static>> {
    vec![
        Cell::Null,
        Cell::Unavailable,
        Cell::Text("ü"),
        Cell::Text(""),
    ]
}

#[test]
fn begin_and_commit_have_unix_time() {
    let begin = bytes(&[b"B", &LSN, &TIME, &7_u32.to_be_bytes()]);
    let commit_us = 946_684_801_000_000;
    let expected = Message::Begin {
        final_lsn: Lsn(0x16_B374_D848),
        commit_us,
        xid: 7,
    };
    assert_eq!(decode(&begin), Ok(expected));
    let commit = bytes(&[b"C\0", &LSN, &LATER, &TIME]);
    let expected = Message::Commit {
        commit_lsn: Lsn(0x16_B374_D848),
        end_lsn: Lsn(0x16_B374_D878),
        commit_us,
    };
    assert_eq!(decode(&commit), Ok(expected));
}

#[test]
fn relation_has_its_columns_and_an_empty_schema_is_the_catalogs() {
    let columns = b"\0\x02\x01id\0\0\0\0\x17\xFF\xFF\xFF\xFF\0name\0\0\0\x04\x13\0\0\0\x0E";
    let message = bytes(&[b"R", &OID, b"public\0a\0d", columns]);
    let Ok(Message::Relation(relation)) = decode(&message) else {
        panic!("no relation")
    };
    assert_eq!((relation.oid, relation.schema.as_str()), (16_384, "public"));
    assert_eq!(relation.replica_identity, ReplicaIdentity::Default);
    let expected = [
        RelationColumn {
            key: true,
            name: "id".to_owned(),
            type_oid: 23,
            typmod: -1,
        },
        RelationColumn {
            key: false,
            name: "name".to_owned(),
            type_oid: 1043,
            typmod: 14,
        },
    ];
    assert_eq!(relation.columns, expected);
    let message = bytes(&[b"R", &OID, b"\0a\0f\0\0"]);
    let Ok(Message::Relation(relation)) = decode(&message) else {
        panic!("no relation")
    };
    assert_eq!(
        (relation.schema.as_str(), relation.columns.len()),
        ("pg_catalog", 0)
    );
    let unknown = bytes(&[b"R", &OID, b"\0a\0z\0\0"]);
    assert_eq!(
        decode(&unknown),
        Err(DecodeError::UnknownPart {
            tag: 'R',
            part: 'z'
        })
    );
}

#[test]
fn insert_tells_null_unavailable_and_empty_apart() {
    let message = bytes(&[b"I", &OID, b"N", TUPLE]);
    let Ok(Message::Insert {
        relation_oid: 16_384,
        new,
    }) = decode(&message)
    else {
        panic!("no insert")
    };
    assert_eq!(cells(new), tuple_cells());
    assert_eq!(new.size_bytes(), TUPLE.len() - 2);
}

#[test]
fn update_has_no_old_row_or_its_key_or_all_of_it() {
    let update = |old: &[u8]| bytes(&[b"U", &OID, old, b"N", TUPLE]);
    let plain = update(b"");
    let Ok(Message::Update { old: None, new, .. }) = decode(&plain) else {
        panic!("no update")
    };
    assert_eq!(cells(new), tuple_cells());
    let key = update(b"K\0\x01t\0\0\0\x011");
    let Ok(Message::Update {
        old: Some(OldTuple::Key(old)),
        ..
    }) = decode(&key)
    else {
        panic!("no update")
    };
    assert_eq!(cells(old), [Cell::Text("1")]);
    let full = update(b"O\0\x01n");
    let Ok(Message::Update {
        old: Some(old @ OldTuple::Full(_)),
        ..
    }) = decode(&full)
    else {
        panic!("no update")
    };
    assert_eq!(cells(old.tuple()), [Cell::Null]);
    let twice = bytes(&[b"U", &OID, b"K\0\0K\0\0"]);
    assert_eq!(
        decode(&twice),
        Err(DecodeError::UnknownPart {
            tag: 'U',
            part: 'K'
        })
    );
}

#[test]
fn delete_has_an_old_row() {
    let key = bytes(&[b"D", &OID, b"K\0\x01t\0\0\0\x011"]);
    assert!(matches!(
        decode(&key),
        Ok(Message::Delete {
            old: OldTuple::Key(_),
            ..
        })
    ));
    let full = bytes(&[b"D", &OID, b"O\0\x01n"]);
    assert!(matches!(
        decode(&full),
        Ok(Message::Delete {
            old: OldTuple::Full(_),
            ..
        })
    ));
    let new = bytes(&[b"D", &OID, b"N\0\x01n"]);
    assert_eq!(
        decode(&new),
        Err(DecodeError::UnknownPart {
            tag: 'D',
            part: 'N'
        })
    );
}

#[test]
fn truncate_type_origin_and_logical_message_are_read() {
    let truncate = bytes(&[b"T\0\0\0\x02\x03", &OID, &OID]);
    let expected = Message::Truncate {
        relation_oids: vec![16_384, 16_384],
        cascade: true,
        restart_identity: true,
    };
    assert_eq!(decode(&truncate), Ok(expected));
    let kind = bytes(&[b"Y", &OID, b"public\0mood\0"]);
    let expected = Message::Type {
        type_oid: 16_384,
        schema: "public",
        name: "mood",
    };
    assert_eq!(decode(&kind), Ok(expected));
    let origin = bytes(&[b"O", &LSN, b"elsewhere\0"]);
    let expected = Message::Origin {
        commit_lsn: Lsn(0x16_B374_D848),
        name: "elsewhere",
    };
    assert_eq!(decode(&origin), Ok(expected));
    let logical = bytes(&[b"M\x01", &LSN, b"firn\0\0\0\0\x02\xFF\0"]);
    let expected = Message::Logical {
        transactional: true,
        lsn: Lsn(0x16_B374_D848),
        prefix: "firn",
        content: b"\xFF\0",
    };
    assert_eq!(decode(&logical), Ok(expected));
}

#[test]
fn value_that_is_not_text_names_its_column_and_goes_to_quarantine() {
    let message = bytes(&[b"I", &OID, b"N\0\x02nt\0\0\0\x01\xFF"]);
    let error = decode(&message).unwrap_err();
    assert_eq!(
        error,
        DecodeError::MalformedText {
            relation_oid: 16_384,
            column_index: 1
        }
    );
    assert_eq!(error.disposition(), Disposition::Quarantine);
    let message = bytes(&[b"I", &OID, b"N\0\x01b\0\0\0\x01\x01"]);
    let error = decode(&message).unwrap_err();
    assert_eq!(
        error,
        DecodeError::BinaryColumn {
            relation_oid: 16_384,
            column_index: 0
        }
    );
    assert_eq!(error.disposition(), Disposition::Halt);
}

#[test]
fn unknown_message_and_bytes_behind_the_end_are_errors() {
    assert_eq!(
        decode(b"S\0"),
        Err(DecodeError::UnknownMessage { tag: 'S' })
    );
    assert_eq!(decode(b""), Err(DecodeError::Truncated { tag: '\0' }));
    let message = bytes(&[b"I", &OID, b"N", TUPLE, b"!"]);
    assert_eq!(
        decode(&message),
        Err(DecodeError::TrailingBytes { tag: 'I', count: 1 })
    );
}

#[test]
fn every_message_cut_short_anywhere_is_an_error() {
    let messages = [
        bytes(&[b"B", &LSN, &TIME, &OID]),
        bytes(&[b"C\0", &LSN, &LATER, &TIME]),
        bytes(&[
            b"R",
            &OID,
            b"s\0t\0d\0\x01\x01id\0\0\0\0\x17\xFF\xFF\xFF\xFF",
        ]),
        bytes(&[b"I", &OID, b"N", TUPLE]),
        bytes(&[b"U", &OID, b"K", TUPLE, b"N", TUPLE]),
        bytes(&[b"D", &OID, b"K", TUPLE]),
        bytes(&[b"T\0\0\0\x01\x03", &OID]),
        bytes(&[b"M\x01", &LSN, b"p\0\0\0\0\x01x"]),
        bytes(&[b"Y", &OID, b"s\0t\0"]),
        bytes(&[b"O", &LSN, b"o\0"]),
    ];
    for message in messages {
        assert!(decode(&message).is_ok(), "{message:?}");
        for length in 0..message.len() {
            let error = decode(&message[..length]).unwrap_err();
            assert!(
                matches!(error, DecodeError::Truncated { .. }),
                "{length} of {message:?}"
            );
        }
    }
}

/// Reads all that a message borrows.
fn walk(message: &Message<'_>) -> usize {
    match message {
        Message::Insert { new, .. } => cells(*new).len(),
        Message::Update { old, new, .. } => {
            cells(*new).len() + old.map_or(0, |old| cells(old.tuple()).len())
        }
        Message::Delete { old, .. } => cells(old.tuple()).len(),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_message_or_an_error(
        tag in prop::sample::select(b"BCORYIUDTMKN".to_vec()),
        body in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\0\0\0\x01NKOntub".to_vec())], 0..80),
    ) {
        let mut payload = vec![tag];
        payload.extend_from_slice(&body);
        if let Ok(message) = decode(&payload) {
            walk(&message);
        }
        if let Ok(message) = decode(&body) {
            walk(&message);
        }
    }

    #[test]
    fn row_of_any_cells_reads_back(
        row in prop::collection::vec(prop_oneof![
            Just(None),
            Just(Some(None)),
            ".{0,20}".prop_map(|text| Some(Some(text))),
        ], 0..20),
    ) {
        let mut payload = bytes(&[b"I", &OID, b"N"]);
        payload.extend_from_slice(&u16::try_from(row.len()).unwrap().to_be_bytes());
        for cell in &row {
            match cell {
                None => payload.push(b'n'),
                Some(None) => payload.push(b'u'),
                Some(Some(text)) => {
                    payload.push(b't');
                    payload.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                    payload.extend_from_slice(text.as_bytes());
                }
            }
        }
        let expected: Vec<Cell<'_>> = row
            .iter()
            .map(|cell| match cell {
                None => Cell::Null,
                Some(None) => Cell::Unavailable,
                Some(Some(text)) => Cell::Text(text),
            })
            .collect();
        let Ok(Message::Insert { new, .. }) = decode(&payload) else { panic!("no insert") };
        prop_assert_eq!(cells(new), expected);
    }
}
