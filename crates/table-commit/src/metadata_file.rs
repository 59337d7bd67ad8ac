//! The metadata file of a table: its name, its bytes, and how they are read.
//!
//! # Invariants
//! - A file name holds a fresh id: no two attempts share a file, so a file is written once and never changed.
//! - Compression follows the table's property; reading looks at the bytes, never at the name.
//!
//! # Source
//! Iceberg specification, "Table Metadata" and "Metadata file naming"; the library compresses only on its way through
//! `write_to`, so that a scratch file in memory stands between.

use std::str::FromStr;

use bytes::Bytes;
use iceberg::MetadataLocation;
use iceberg::compression::CompressionCodec;
use iceberg::io::FileIO;
use iceberg::spec::TableMetadata;
use object_io::ObjectStore;
use uuid::Uuid;

use crate::catalog::TableName;
use crate::error::CommitError;
use crate::times;

/// The key of an address of the bucket.
///
/// # Errors
/// [`CommitError::ForeignLocation`] (Halt) if it is outside.
pub(crate) fn key_of<'a>(
    store: &dyn ObjectStore,
    location: &'a str,
) -> Result<&'a str, CommitError> {
    location
        .strip_prefix(store.uri_prefix())
        .ok_or_else(|| CommitError::ForeignLocation {
            location: location.to_owned(),
            uri_prefix: store.uri_prefix().to_owned(),
        })
}

/// The object at an address that table metadata names.
pub(crate) async fn fetch(
    store: &dyn ObjectStore,
    table: &TableName,
    location: &str,
) -> Result<Bytes, CommitError> {
    let key = key_of(store, location)?;
    store
        .get(key)
        .await?
        .ok_or_else(|| CommitError::MissingObject {
            table: table.clone(),
            key: key.to_owned(),
        })
}

/// An id of an `IdSource` in the form that Iceberg's file names and table identity have.
pub(crate) fn uuid_of(id: &str) -> Uuid {
    // An id is 32 hexadecimal digits by contract; one that is not still gives a name of its own.
    Uuid::parse_str(id).unwrap_or_else(|_malformed| {
        let folded = id
            .bytes()
            .fold(0u128, |hash, byte| hash.rotate_left(7) ^ u128::from(byte));
        Uuid::from_u128(folded)
    })
}

/// The version in the name of a metadata file.
pub(crate) fn version_of(location: &str) -> Option<u64> {
    let name = location.rsplit('/').next()?;
    let number: String = name
        .trim_start_matches('v')
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    number.parse().ok()
}

/// The address of the metadata that follows the one at `previous`.
pub(crate) fn next_location(previous: Option<&str>, metadata: &TableMetadata, id: &str) -> String {
    let version = previous.map_or(0, |location| {
        version_of(location).unwrap_or(0).saturating_add(1)
    });
    let suffix = match metadata.metadata_compression_codec() {
        Ok(CompressionCodec::Gzip(_)) => ".gz",
        _ => "",
    };
    format!(
        "{}/metadata/{version:05}-{}{suffix}.metadata.json",
        metadata.location(),
        uuid_of(id)
    )
}

/// A file of a table's metadata folder whose name is one that this crate gives. The scheme is Iceberg's own: other engines
/// name their files alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataFile {
    /// Table metadata.
    Metadata {
        /// Number of the move of the pointer that it was written for.
        version: u64,
    },
    /// A manifest.
    Manifest,
    /// A manifest list.
    ManifestList,
}

impl MetadataFile {
    /// Reads a name; `None` for all others.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_uuid = |text: &str| text.len() == 36 && Uuid::parse_str(text).is_ok();
        if let Some(stem) = name.strip_suffix(".metadata.json") {
            let stem = stem.strip_suffix(".gz").unwrap_or(stem);
            let (version, id) = stem.split_once('-')?;
            let version = version.parse().ok()?;
            return is_uuid(id).then_some(Self::Metadata { version });
        }
        let stem = name.strip_suffix(".avro")?;
        if let Some(list) = stem.strip_prefix("snap-") {
            let (snapshot, rest) = list.split_once('-')?;
            let (attempt, id) = rest.split_once('-')?;
            let numbers = snapshot.parse::<u64>().is_ok() && attempt.parse::<u64>().is_ok();
            return (numbers && is_uuid(id)).then_some(Self::ManifestList);
        }
        let (id, number) = stem.rsplit_once("-m")?;
        (is_uuid(id) && number.parse::<u64>().is_ok()).then_some(Self::Manifest)
    }
}

/// The bytes of metadata for this address.
pub(crate) async fn encode(metadata: &TableMetadata, location: &str) -> Result<Bytes, CommitError> {
    let failed = CommitError::iceberg("writing table metadata");
    let scratch = FileIO::new_with_memory();
    let parsed = MetadataLocation::from_str(location).map_err(&failed)?;
    metadata
        .write_to(&scratch, &parsed)
        .await
        .map_err(&failed)?;
    scratch
        .new_input(location)
        .map_err(&failed)?
        .read()
        .await
        .map_err(&failed)
}

/// The metadata in these bytes, compressed or not.
pub(crate) async fn decode(bytes: Bytes, location: &str) -> Result<TableMetadata, CommitError> {
    let failed = CommitError::iceberg("reading table metadata");
    let scratch = FileIO::new_with_memory();
    scratch
        .new_output(location)
        .map_err(&failed)?
        .write(bytes.clone())
        .await
        .map_err(&failed)?;
    let error = match TableMetadata::read_from(&scratch, location).await {
        Ok(metadata) => return Ok(metadata),
        Err(error) => error,
    };
    let Some(metadata) = times::rising(&bytes) else {
        return Err(failed(error));
    };
    tracing::warn!(location, %error, "times in the table's logs went backwards: read as if they had not");
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::TableCreation;
    use iceberg::spec::TableMetadataBuilder;

    use super::*;

    const ID: &str = "0102030405060708090a0b0c0d0e0f10";

    fn metadata(codec: &str) -> TableMetadata {
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location("s3://b/t".to_owned())
            .schema(table_file::base_schema().unwrap())
            .properties(HashMap::from([(
                "write.metadata.compression-codec".to_owned(),
                codec.to_owned(),
            )]))
            .build();
        TableMetadataBuilder::from_table_creation(creation)
            .unwrap()
            .build()
            .unwrap()
            .metadata
    }

    #[tokio::test]
    async fn metadata_reads_back_plain_and_compressed() {
        for codec in ["none", "gzip"] {
            let before = metadata(codec);
            let location = next_location(None, &before, ID);
            assert_eq!(location.ends_with(".gz.metadata.json"), codec == "gzip");
            let bytes = encode(&before, &location).await.unwrap();
            assert_eq!(bytes.starts_with(&[0x1F, 0x8B]), codec == "gzip");
            assert_eq!(decode(bytes, &location).await.unwrap(), before);
        }
    }

    #[test]
    fn names_of_ours_are_known_and_others_are_not() {
        let id = "01020304-0506-0708-090a-0b0c0d0e0f10";
        let known = |name: String| MetadataFile::parse(&name);
        let metadata = Some(MetadataFile::Metadata { version: 41 });
        assert_eq!(known(format!("00041-{id}.gz.metadata.json")), metadata);
        assert_eq!(known(format!("00041-{id}.metadata.json")), metadata);
        assert_eq!(known(format!("{id}-m0.avro")), Some(MetadataFile::Manifest));
        assert_eq!(
            known(format!("snap-77-1-{id}.avro")),
            Some(MetadataFile::ManifestList)
        );
        for name in [
            format!("v41-{id}.metadata.json"),
            "v7.metadata.json".to_owned(),
            "version-hint.text".to_owned(),
            format!("{id}-m0.puffin"),
            format!("{id}.avro"),
            format!("snap-x-1-{id}.avro"),
            format!("{id}/00041-{id}.metadata.json"),
        ] {
            assert_eq!(MetadataFile::parse(&name), None, "{name}");
        }
    }

    #[test]
    fn names_count_on_from_any_engines_names() {
        let metadata = metadata("gzip");
        let after = |previous| next_location(previous, &metadata, ID);
        let id = "01020304-0506-0708-090a-0b0c0d0e0f10";
        assert_eq!(
            after(None),
            format!("s3://b/t/metadata/00000-{id}.gz.metadata.json")
        );
        assert_eq!(
            after(Some("s3://b/t/metadata/00041-x.gz.metadata.json")),
            format!("s3://b/t/metadata/00042-{id}.gz.metadata.json")
        );
        assert_eq!(
            after(Some("s3://b/t/metadata/v7.metadata.json")),
            format!("s3://b/t/metadata/00008-{id}.gz.metadata.json")
        );
    }
}
