//! Events as Lambda sends them, and as it should not.

use super::*;

fn event(records: &str) -> String {
    format!(
        r#"{{"eventSource":"aws:kafka","eventSourceArn":"arn","bootstrapServers":"b:9092","records":{{{records}}}}}"#
    )
}

fn one(record: &str) -> String {
    event(&format!(r#""t-0":[{record}]"#))
}

/// The only record of an event.
fn record(payload: &str) -> Result<RawRecord<'_>, BadRecord<'_>> {
    let mut groups = decode(payload.as_bytes()).expect("an event");
    assert_eq!((groups.len(), groups[0].records.len()), (1, 1));
    groups.remove(0).records.remove(0)
}

fn error(members: &str) -> RecordError {
    record(&one(&format!(r#"{{"topic":"t",{members}}}"#)))
        .expect_err("bad")
        .error
}

#[test]
fn whole_record_reads() {
    let payload = one(
        r#"{"topic":"shop.public.a-2db","partition":3,"offset":9007199254740993,"timestamp":1,"timestampType":"CREATE_TIME",
        "key":"eyJpZCI6MX0=","value":"aGk=","headers":[{"other":[300,"x",{"a":[]}]},{"firn":[1,-1,200,0,127]}],"more":{"x":[1]}}"#,
    );
    let record = record(&payload).expect("good");
    assert!(matches!(record.topic, Cow::Borrowed("shop.public.a-2db")));
    assert_eq!(
        (record.partition, record.offset),
        (3, 9_007_199_254_740_993)
    );
    assert_eq!(record.key.as_deref(), Some(&b"{\"id\":1}"[..]));
    assert_eq!(record.value.as_deref(), Some(&b"hi"[..]));
    assert_eq!(record.header, Some(vec![1, 255, 200, 0, 127]));
}

#[test]
fn what_may_be_missing_may_be_missing() {
    for record_text in [
        r#"{"topic":"t","partition":0,"offset":0}"#,
        r#"{"topic":"t","partition":0,"offset":0,"key":null,"value":null,"headers":null}"#,
        r#"{"topic":"t","partition":0,"offset":0,"headers":[]}"#,
        r#"{"topic":"t","partition":0,"offset":0,"headers":[{}]}"#,
    ] {
        let payload = one(record_text);
        let record = record(&payload).expect("good");
        assert_eq!(
            (record.key, record.value, record.header),
            (None, None, None)
        );
    }
    let payload = one(r#"{"topic":"t","partition":0,"offset":0,"key":"","value":""}"#);
    let record = record(&payload).expect("good");
    assert_eq!(record.value.as_deref(), Some(&b""[..]));
}

#[test]
fn group_names_are_left_whole_and_in_order() {
    let good = r#"{"topic":"a-1","partition":0,"offset":0}"#;
    let payload = event(&format!(r#""z-9":[],"a-1-0":[{good},{good}]"#));
    let groups = decode(payload.as_bytes()).expect("an event");
    let shape: Vec<_> = groups.iter().map(|g| (&*g.name, g.records.len())).collect();
    assert_eq!(shape, [("z-9", 0), ("a-1-0", 2)]);
    assert!(decode(event("").as_bytes()).expect("an event").is_empty());
}

#[test]
fn escaped_base64_and_names_read() {
    let payload = one(r#"{"topic":"t\u002d","partition":0,"offset":0,"value":"\/\/8="}"#);
    let record = record(&payload).expect("good");
    assert_eq!(
        (&*record.topic, record.value.as_deref()),
        ("t-", Some(&[0xFF, 0xFF][..]))
    );
}

#[test]
fn bad_record_says_why() {
    assert_eq!(
        error(r#""partition":-1,"offset":0"#),
        RecordError::Partition
    );
    assert_eq!(
        error(r#""partition":2147483648,"offset":0"#),
        RecordError::Partition
    );
    assert_eq!(error(r#""partition":0,"offset":-1"#), RecordError::Offset);
    let base64 = |member| RecordError::Base64 { member };
    assert_eq!(
        error(r#""partition":0,"offset":0,"value":"a""#),
        base64("value")
    );
    assert_eq!(
        error(r#""partition":0,"offset":0,"value":"aGk""#),
        base64("value")
    );
    assert_eq!(
        error(r#""partition":0,"offset":0,"key":"a*b=""#),
        base64("key")
    );
    let header = |text: &str| error(&format!(r#""partition":0,"offset":0,"headers":{text}"#));
    assert_eq!(header(r#"[{"firn":[256]}]"#), RecordError::HeaderByte);
    assert_eq!(header(r#"[{"firn":[-129]}]"#), RecordError::HeaderByte);
    assert_eq!(
        header(r#"[{"firn":[1]},{"firn":[1]}]"#),
        RecordError::HeaderTwice
    );
    assert_eq!(
        header(r#"[{"firn":[1],"firn":[1]}]"#),
        RecordError::HeaderTwice
    );
    assert_eq!(header(r#"[{"firn":"AQ=="}]"#), RecordError::Malformed);
    assert_eq!(header(r#"[{"firn":[1.5]}]"#), RecordError::Malformed);
    assert_eq!(header("5"), RecordError::Malformed);
    assert_eq!(
        error(r#""partition":"0","offset":0"#),
        RecordError::Malformed
    );
    assert_eq!(error(r#""partition":0"#), RecordError::Malformed);
    assert_eq!(
        error(r#""partition":0,"offset":1e30"#),
        RecordError::Malformed
    );
    assert_eq!(
        error(r#""partition":0,"offset":99999999999999999999"#),
        RecordError::Malformed
    );
    assert_eq!(
        error(r#""partition":0,"offset":0,"value":5"#),
        RecordError::Malformed
    );
}

#[test]
fn one_bad_record_leaves_the_others_and_its_own_place() {
    let good =
        |offset: i64| format!(r#"{{"topic":"t","partition":0,"offset":{offset},"value":"aGk="}}"#);
    let bad = r#"{"topic":"t","partition":0,"offset":1,"value":{"a":1}}"#;
    let payload = event(&format!(
        r#""t-0":[{},{bad},{},null,"x"]"#,
        good(0),
        good(2)
    ));
    let groups = decode(payload.as_bytes()).expect("an event");
    let records = &groups[0].records;
    assert_eq!(records.len(), 5);
    for (at, offset) in [(0, 0), (2, 2)] {
        let record = records[at].as_ref().expect("good");
        assert_eq!(
            (record.offset, record.value.as_deref()),
            (offset, Some(&b"hi"[..]))
        );
    }
    let place = BadRecord {
        topic: Some("t".into()),
        partition: Some(0),
        offset: Some(1),
        error: RecordError::Malformed,
    };
    assert_eq!(records[1], Err(place));
    let nowhere = BadRecord {
        topic: None,
        partition: None,
        offset: None,
        error: RecordError::Malformed,
    };
    assert_eq!(records[3], Err(nowhere.clone()));
    assert_eq!(records[4], Err(nowhere));
}

#[test]
fn what_is_no_kafka_event_is_refused_whole() {
    for text in [
        "",
        "[]",
        r#"{"nope":1}"#,
        r#"{"eventSource":"aws:kafka"}"#,
        &event(r#""t-0":{}"#),
    ] {
        assert!(decode(text.as_bytes()).is_err(), "{text}");
    }
    let other = event("").replace("aws:kafka", "aws:sqs");
    assert_eq!(decode(other.as_bytes()), Err(EventError::WrongSource));
    let own = event("").replace("aws:kafka", "aws:SelfManagedKafka");
    assert!(decode(own.as_bytes()).is_ok());
    assert!(decode(b"{\"eventSource\":\"\xff\"}").is_err());
}
