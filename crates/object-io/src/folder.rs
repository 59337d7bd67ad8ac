//! Objects as files below a local folder: the demo without a cloud, and a second opinion for the contract suite.
//!
//! # Invariants
//! - A reader never sees half an object: bytes go to a temporary file, which is then linked (create-only) or renamed.
//! - A create-only put is a hard link: the file system lets exactly one name win.
//!
//! # Source
//! POSIX `link(2)`: fails with `EEXIST` if the new name exists; `rename(2)`: replaces the new name atomically.

use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::fs;

use crate::{ListPage, ListedObject, ObjectError, ObjectStore, PAGE_OBJECTS_MAX, PutOutcome};

/// Folder below the root for files that are being written. Its name holds a byte that no key of ours begins with.
const PARTIAL: &str = "~partial";

/// A bucket that is a folder.
#[derive(Debug)]
pub struct FolderStore {
    root: PathBuf,
    uri_prefix: String,
    partial_count: AtomicU64,
}

impl FolderStore {
    /// The bucket below `root`, which is made when first written to.
    ///
    /// Readers of the lake are given `file://` addresses, so `root` must be absolute.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let uri_prefix = format!("file://{}/", root.display());
        Self {
            root: root.to_owned(),
            uri_prefix,
            partial_count: AtomicU64::new(0),
        }
    }

    fn path(&self, operation: &'static str, key: &str) -> Result<PathBuf, ObjectError> {
        let relative = Path::new(key);
        if relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Ok(self.root.join(relative));
        }
        let source = io::Error::new(ErrorKind::InvalidInput, "key leaves the folder");
        Err(ObjectError::Refused {
            operation,
            key: key.to_owned(),
            source: Box::new(source),
        })
    }

    async fn write_partial(&self, body: &Bytes) -> io::Result<PathBuf> {
        let folder = self.root.join(PARTIAL);
        fs::create_dir_all(&folder).await?;
        let number = self.partial_count.fetch_add(1, Ordering::Relaxed);
        // The address tells two stores of one process apart, the process id two processes.
        let name = format!(
            "{}-{:p}-{number}",
            std::process::id(),
            &raw const self.partial_count
        );
        let path = folder.join(name);
        fs::write(&path, body).await?;
        Ok(path)
    }
}

fn failed(operation: &'static str, key: &str, source: io::Error) -> ObjectError {
    let (key, refused) = (key.to_owned(), source.kind() == ErrorKind::PermissionDenied);
    let source = Box::new(source);
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

#[async_trait]
impl ObjectStore for FolderStore {
    fn uri_prefix(&self) -> &str {
        &self.uri_prefix
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        match fs::read(self.path("get", key)?).await {
            Ok(body) => Ok(Some(body.into())),
            Err(source) if is_absent(&source) => Ok(None),
            Err(source) => Err(failed("get", key, source)),
        }
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        let path = self.path("put", key)?;
        let link = async {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).await?;
            }
            let partial = self.write_partial(&body).await?;
            let linked = fs::hard_link(&partial, &path).await;
            fs::remove_file(&partial).await?;
            linked
        };
        match link.await {
            Ok(()) => Ok(PutOutcome::Created),
            Err(source) if source.kind() == ErrorKind::AlreadyExists => Ok(PutOutcome::Exists),
            Err(source) => Err(failed("put", key, source)),
        }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        let path = self.path("put", key)?;
        let rename = async {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).await?;
            }
            let partial = self.write_partial(&body).await?;
            fs::rename(&partial, &path).await
        };
        rename.await.map_err(|source| failed("put", key, source))
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        let failed = |source| failed("list", prefix, source);
        let mut keys = keys_below(&self.root).await.map_err(failed)?;
        keys.retain(|key| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        keys.sort_unstable();
        let page_objects = limit.min(PAGE_OBJECTS_MAX);
        let truncated = keys.len() > page_objects;
        keys.truncate(page_objects);
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            match fs::metadata(self.root.join(&key)).await {
                Ok(found) => objects.push(listed(key, &found)),
                // Removed since the folder was read.
                Err(source) if is_absent(&source) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(ListPage { objects, truncated })
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match fs::remove_file(self.path("delete", key)?).await {
            Ok(()) => Ok(()),
            Err(source) if is_absent(&source) => Ok(()),
            Err(source) => Err(failed("delete", key, source)),
        }
    }
}

fn listed(key: String, found: &std::fs::Metadata) -> ListedObject {
    let modified_ms = found
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_millis()).ok());
    ListedObject {
        key,
        size_bytes: found.len(),
        modified_ms: modified_ms.unwrap_or(i64::MAX),
    }
}

/// Nothing there; or the key is a folder of other keys, which is nothing as an object.
fn is_absent(source: &io::Error) -> bool {
    matches!(
        source.kind(),
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory
    )
}

async fn keys_below(root: &Path) -> io::Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let mut entries = match fs::read_dir(&folder).await {
            Ok(entries) => entries,
            Err(source) if is_absent(&source) => continue,
            Err(source) => return Err(source),
        };
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if prefix.is_empty() && name == PARTIAL {
                continue;
            }
            if entry.file_type().await?.is_dir() {
                folders.push((entry.path(), format!("{prefix}{name}/")));
            } else {
                keys.push(format!("{prefix}{name}"));
            }
        }
    }
    Ok(keys)
}
