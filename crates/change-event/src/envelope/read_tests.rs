//! The reader against hand-written envelopes, the writer's own, and `serde_json`.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

const TAIL: &str = r#""source":{"ts_us":7,"db":"x"},"op":"u","ts_ms":3}"#;

fn parse(text: &str) -> Result<EnvelopeView<'_>, EnvelopeError> {
    EnvelopeView::parse(text.as_bytes())
}

fn error(text: &str) -> EnvelopeError {
    parse(text).expect_err("no envelope")
}

fn not_json(offset: usize) -> EnvelopeError {
    JsonError::NotJson { offset }.into()
}

/// An image as `serde_json` would hold it.
fn image_json(image: ImageView<'_>) -> Result<Json, EnvelopeError> {
    let mut object = serde_json::Map::new();
    for field in image {
        let (name, cell) = field?;
        let value = match cell {
            RawCell::Null => Json::Null,
            RawCell::Bool(value) => Json::Bool(value),
            // serde_json rounds some floats wrongly; the standard library does not.
            RawCell::Number(text) => match text.parse::<i64>() {
                Ok(integer) => Json::from(integer),
                Err(_) => Json::from(text.parse::<f64>().expect("a number")),
            },
            RawCell::String(text) => Json::String(text.unescape(&mut String::new()).to_owned()),
        };
        object.insert(name.to_text().into_owned(), value);
    }
    Ok(Json::Object(object))
}

#[test]
fn bare_and_wrapped_envelopes_read_alike() {
    let bare =
        format!(r#"{{"before":null,"after":{{"id":5,"n":"a\"b","ok":true,"z":null}},{TAIL}"#);
    let wrapped =
        format!(r#"{{"schema":{{"fields":[{{"type":"struct"}}, 1]}}, "payload": {bare} }}"#);
    for text in [&bare, &wrapped] {
        let envelope = parse(text).expect("an envelope");
        assert_eq!(envelope.operation, Operation::Update);
        assert!(envelope.before.is_none());
        assert_eq!((envelope.source_ts_us, envelope.ts_ms), (7, Some(3)));
        let after = image_json(envelope.after.expect("after")).expect("scalars");
        assert_eq!(after, json!({"id": 5, "n": "a\"b", "ok": true, "z": null}));
    }
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        error(r#"{"source":{"ts_us":7}}"#),
        EnvelopeError::Missing { member: "op" }
    );
    let missing_time = EnvelopeError::Missing {
        member: "source.ts_us",
    };
    assert_eq!(error(r#"{"op":"c"}"#), missing_time);
    assert_eq!(error(r#"{"op":"c","source":{"ts_ms":1}}"#), missing_time);
    assert_eq!(error(r#"{"op":"c","source":{"ts_us":null}}"#), missing_time);
    assert_eq!(
        error(r#"{"op":"x","source":{"ts_us":7}}"#),
        EnvelopeError::UnknownOperation
    );
    assert_eq!(error("[1]"), EnvelopeError::NotObject);
    assert_eq!(error("null"), EnvelopeError::NotObject);
    assert_eq!(
        error(r#"{"op":"c","op":"c"}"#),
        EnvelopeError::Duplicate { member: "op" }
    );
    let wrong = |member, expected| EnvelopeError::WrongType { member, expected };
    assert_eq!(error(r#"{"op":1}"#), wrong("op", "a string"));
    assert_eq!(error(r#"{"after":[1]}"#), wrong("after", "an object"));
    assert_eq!(error(r#"{"payload":null}"#), wrong("payload", "an object"));
    assert_eq!(error(r#"{"source":"s"}"#), wrong("source", "an object"));
    let integer = wrong("source.ts_us", "a 64-bit integer");
    assert_eq!(error(r#"{"source":{"ts_us":1.5}}"#), integer);
    assert_eq!(
        error(r#"{"source":{"ts_us":99999999999999999999}}"#),
        integer
    );
}

#[test]
fn broken_json_says_where() {
    assert_eq!(error(""), not_json(0));
    assert_eq!(error(r#"{"op":"c",}"#), not_json(10));
    assert_eq!(error(r#"{"op":"c"} x"#), not_json(11));
    let not_utf8 = EnvelopeView::parse(b"{\"op\":\"\xff\"}").expect_err("no envelope");
    assert_eq!(
        not_utf8,
        EnvelopeError::Json(JsonError::NotUtf8 { offset: 7 })
    );
    let deep = format!("{{\"x\":{}", "[".repeat(5000));
    assert!(matches!(
        error(&deep),
        EnvelopeError::Json(JsonError::TooDeep { .. })
    ));
}

#[test]
fn nested_value_names_its_column() {
    let text = format!(r#"{{"after":{{"id":5,"tags":[1]}},{TAIL}"#);
    let after = parse(&text).expect("an envelope").after.expect("after");
    assert_eq!(
        image_json(after),
        Err(EnvelopeError::NestedValue {
            column: "tags".to_owned()
        })
    );
}

#[test]
fn lone_surrogate_is_refused_and_a_pair_is_one_character() {
    let text = |escape: &str| format!(r#"{{"after":{{"a":"x{escape}y"}},{TAIL}"#);
    for bad in [
        "\\ud83d",
        "\\ude00",
        "\\ud83d\\n",
        "\\ud83d\\u0041",
        "\\u12g4",
        "\\x",
        "\u{1}",
    ] {
        assert!(matches!(error(&text(bad)), EnvelopeError::Json(_)), "{bad}");
    }
    let good = text("\\ud83d\\ude00\\u0000\\/\\b\\f");
    let after = parse(&good).expect("an envelope").after.expect("after");
    assert_eq!(
        image_json(after),
        Ok(json!({"a": "x\u{1f600}\u{0}/\u{8}\u{c}y"}))
    );
}

fn any_scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>()
            .prop_filter("-0 is an integer to us", |x| *x != 0.0)
            .prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        "[a-z\"\\\\\n ]{0,40}".prop_map(Json::from),
    ]
}

proptest! {
    #[test]
    fn any_image_reads_as_serde_json_reads_it(
        fields in proptest::collection::btree_map(any::<String>(), any_scalar(), 0..8),
        pretty in any::<bool>(),
    ) {
        let after = Json::Object(fields.into_iter().collect());
        let whole = json!({"after": after, "op": "c", "source": {"ts_us": 1}, "x": [{"y": after}]});
        let text = if pretty {
            serde_json::to_string_pretty(&whole)
        } else {
            serde_json::to_string(&whole)
        };
        let text = text.expect("writes");
        let envelope = parse(&text).expect("an envelope");
        prop_assert_eq!(image_json(envelope.after.expect("after")), Ok(after));
    }

    #[test]
    fn any_bytes_give_an_envelope_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _either = EnvelopeView::parse(&bytes).is_ok();
    }

    /// One byte of a good envelope replaced: accepted only if `serde_json` accepts it, and then read alike.
    #[test]
    fn damaged_envelope_is_never_accepted_where_serde_json_refuses(
        at in 0usize..200, byte in prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\0e-. tn".to_vec())],
    ) {
        let good = format!(
            r#"{{"before":{{"id":-1.5e+3}},"after":{{"id":5,"n":"a\u0041\n","ok":true,"x":{{"y":[1,2,null]}}}},{TAIL}"#
        );
        let mut bytes = good.into_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        let json: Result<Json, _> = serde_json::from_slice(&bytes);
        if let Ok(envelope) = EnvelopeView::parse(&bytes) {
            let json = json.expect("serde_json accepts too");
            if let Some(Ok(before)) = envelope.before.map(image_json) {
                prop_assert_eq!(before.get("id").is_some(), json["before"].get("id").is_some());
            }
        } else if let Ok(json) = json {
            let plausible = json.get("op").is_some_and(|op| ["c", "u", "d", "r", "t"].iter().any(|l| op == l))
                && json["source"]["ts_us"].is_i64()
                && (json["after"].is_object() || json["after"].is_null())
                && (json["before"].is_object() || json["before"].is_null())
                && (json["ts_ms"].is_i64() || json["ts_ms"].is_null());
            // What is left that only we refuse: a member that stands twice.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let doubled = ["\"op\":", "\"source\":", "\"after\":", "\"before\":", "\"ts_ms\":"]
                .iter()
                .any(|member| text.matches(member).count() > 1);
            prop_assert!(!plausible || doubled, "{}", text);
        }
    }
}
