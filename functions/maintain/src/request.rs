//! What an event asks for. Pure.

use function_kit::Failure;
use function_kit::failure::INVALID_EVENT;
use serde::Deserialize;

/// A run over all registered tables: `{"maintain":true}` of a schedule, or `{"maintain":true,"dry_run":true}` of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Must be true.
    maintain: bool,
    /// Finds and logs everything, young orphans too, and removes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

impl Request {
    /// Reads an event. A field with another name is refused: who misspells `dry_run` wants nothing removed.
    ///
    /// # Errors
    /// [`Failure`] `InvalidEvent`.
    pub fn parse(payload: &[u8]) -> Result<Self, Failure> {
        let request: Self =
            serde_json::from_slice(payload).map_err(|error| Failure::of(INVALID_EVENT, &error))?;
        if request.maintain {
            Ok(request)
        } else {
            Err(Failure::new(INVALID_EVENT, "maintain is false"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_words_remove_anything() {
        assert!(!Request::parse(br#"{"maintain":true}"#).unwrap().dry_run);
        let dry = Request::parse(br#"{"maintain":true,"dry_run":true}"#);
        assert!(dry.unwrap().dry_run);
        for other in [
            r#"{"maintain":false}"#,
            r#"{"maintain":true,"dryrun":true}"#,
            r#"{"dry_run":true}"#,
            "{}",
        ] {
            assert!(Request::parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
