//! S3, and whatever speaks its protocol.
//!
//! # Invariants
//! - A create-only put is sent once per answer: the SDK's retries are off for it, so that an answer belongs to one attempt.
//! - Whatever is not known to have been refused is [`PutOutcome::Unknown`].
//!
//! # Source
//! Amazon S3 User Guide, "How to prevent object overwrites with conditional writes": 412 if the key exists, 409
//! `ConditionalRequestConflict` if a delete or another write raced: send the same request again.

use std::error::Error;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::Object;
use bytes::Bytes;

use crate::{ListPage, ListedObject, ObjectError, ObjectStore, PAGE_OBJECTS_MAX, PutOutcome};

/// Times a create-only put that met a racing write (409) is sent again.
const CONFLICT_TRIES: u32 = 5;

/// One bucket of S3.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
    uri_prefix: String,
}

impl S3Store {
    /// The bucket of this name. `path_style` for stand-ins that have no host name per bucket.
    #[must_use]
    pub fn new(config: &SdkConfig, bucket: &str, path_style: bool) -> Self {
        let config = aws_sdk_s3::config::Builder::from(config)
            .force_path_style(path_style)
            .build();
        Self {
            client: Client::from_conf(config),
            bucket: bucket.to_owned(),
            uri_prefix: format!("s3://{bucket}/"),
        }
    }
}

/// What an answer to a conditional put means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PutAnswer {
    Exists,
    Raced,
    Refused,
    Throttled,
    Unknown,
}

/// The meaning of an answer by its status and code; `None` where no answer came.
fn put_answer(status: Option<u16>, code: Option<&str>) -> PutAnswer {
    match (status, code) {
        (Some(412), _) => PutAnswer::Exists,
        (Some(409), _) => PutAnswer::Raced,
        (Some(503), Some("SlowDown")) | (Some(429), _) => PutAnswer::Throttled,
        (Some(400), Some("RequestTimeout")) | (Some(408), _) => PutAnswer::Unknown,
        (Some(400..500), _) => PutAnswer::Refused,
        _ => PutAnswer::Unknown,
    }
}

fn classify(error: &SdkError<PutObjectError>) -> PutAnswer {
    match error {
        // Never left this process.
        SdkError::ConstructionFailure(_) => PutAnswer::Refused,
        SdkError::ServiceError(answer) => {
            put_answer(Some(answer.raw().status().as_u16()), answer.err().code())
        }
        // Sent or perhaps sent, and no answer that can be read.
        _ => PutAnswer::Unknown,
    }
}

/// An error of a read, a listing or an unconditional write: all of them may be tried again unless refused.
fn failed<E>(operation: &'static str, key: &str, error: SdkError<E>) -> ObjectError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
{
    let key = key.to_owned();
    let refused = match &error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(answer) => {
            let (status, code) = (answer.raw().status().as_u16(), answer.err().code());
            (400..500).contains(&status)
                && !matches!(status, 408 | 409 | 429)
                && code != Some("RequestTimeout")
        }
        _ => false,
    };
    let source = Box::new(error);
    if refused {
        ObjectError::Refused {
            operation,
            key,
            source,
        }
    } else {
        ObjectError::Unavailable {
            operation,
            key,
            source,
        }
    }
}

fn listed(object: Object) -> Option<ListedObject> {
    let modified = object.last_modified.and_then(|time| time.to_millis().ok());
    Some(ListedObject {
        key: object.key?,
        size_bytes: object
            .size
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0),
        modified_ms: modified.unwrap_or(i64::MAX),
    })
}

#[async_trait]
impl ObjectStore for S3Store {
    fn uri_prefix(&self) -> &str {
        &self.uri_prefix
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        let answer = match self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await
        {
            Ok(answer) => answer,
            Err(SdkError::ServiceError(answer)) if answer.err().is_no_such_key() => {
                return Ok(None);
            }
            Err(error) => return Err(failed("get", key, error)),
        };
        let body = answer
            .body
            .collect()
            .await
            .map_err(|source| ObjectError::Unavailable {
                operation: "get",
                key: key.to_owned(),
                source: Box::new(source),
            })?;
        Ok(Some(body.into_bytes()))
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        for _ in 0..CONFLICT_TRIES {
            let put = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(key)
                .if_none_match("*")
                .body(ByteStream::from(body.clone()))
                .customize()
                .config_override(
                    aws_sdk_s3::config::Builder::new().retry_config(RetryConfig::disabled()),
                );
            let Err(error) = put.send().await else {
                return Ok(PutOutcome::Created);
            };
            let key = key.to_owned();
            match classify(&error) {
                PutAnswer::Exists => return Ok(PutOutcome::Exists),
                PutAnswer::Raced => {}
                PutAnswer::Unknown => return Ok(PutOutcome::Unknown),
                PutAnswer::Refused => {
                    let source = Box::new(error);
                    return Err(ObjectError::Refused {
                        operation: "put",
                        key,
                        source,
                    });
                }
                PutAnswer::Throttled => {
                    let source = Box::new(error);
                    return Err(ObjectError::Unavailable {
                        operation: "put",
                        key,
                        source,
                    });
                }
            }
        }
        Ok(PutOutcome::Unknown)
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(ByteStream::from(body));
        put.send()
            .await
            .map(drop)
            .map_err(|error| failed("put", key, error))
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        let keys_max = i32::try_from(limit.min(PAGE_OBJECTS_MAX)).unwrap_or(i32::MAX);
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .max_keys(keys_max);
        let page = request
            .send()
            .await
            .map_err(|error| failed("list", prefix, error))?;
        let truncated = page.is_truncated().unwrap_or(false);
        let objects = page.contents.unwrap_or_default();
        Ok(ListPage {
            objects: objects.into_iter().filter_map(listed).collect(),
            truncated,
        })
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key);
        delete
            .send()
            .await
            .map(drop)
            .map_err(|error| failed("delete", key, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_refusals_count_as_not_written() {
        let meanings = [
            (Some(412), Some("PreconditionFailed"), PutAnswer::Exists),
            (
                Some(409),
                Some("ConditionalRequestConflict"),
                PutAnswer::Raced,
            ),
            (Some(403), Some("AccessDenied"), PutAnswer::Refused),
            (Some(404), Some("NoSuchBucket"), PutAnswer::Refused),
            (Some(503), Some("SlowDown"), PutAnswer::Throttled),
            (Some(503), Some("ServiceUnavailable"), PutAnswer::Unknown),
            (Some(500), Some("InternalError"), PutAnswer::Unknown),
            (Some(400), Some("RequestTimeout"), PutAnswer::Unknown),
            (None, None, PutAnswer::Unknown),
        ];
        for (status, code, meaning) in meanings {
            assert_eq!(put_answer(status, code), meaning, "{status:?} {code:?}");
        }
    }
}
