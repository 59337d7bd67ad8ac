//! Folders below a folder, and what other tables a topic has fed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_io::{ObjectError, ObjectStore};
use table_commit::INTENTS;

/// Listings at a time.
const LISTINGS_AT_ONCE: usize = 16;

/// Folders directly below `parent` (which ends with `/`), by name, each with `/` at its end.
///
/// Cost: one listing of one object for each folder.
pub(crate) async fn folders(
    store: &dyn ObjectStore,
    parent: &str,
) -> Result<Vec<String>, ObjectError> {
    let mut folders = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list_page(parent, after.as_deref(), 1).await?;
        let Some(first) = page.objects.into_iter().next() else {
            return Ok(folders);
        };
        let name = first
            .key
            .strip_prefix(parent)
            .and_then(|rest| rest.split_once('/'));
        after = Some(match name {
            Some((name, _)) => {
                folders.push(format!("{parent}{name}/"));
                // `0` follows `/`: behind everything that is in the folder.
                format!("{parent}{name}0")
            }
            None => first.key,
        });
    }
}

/// The name of a folder below `parent`.
fn name_below<'a>(folder: &'a str, parent: &str) -> Option<&'a str> {
    folder.strip_prefix(parent)?.strip_suffix('/')
}

/// Identities of the tables that have chains, by topic.
#[derive(Debug, Default)]
pub(crate) struct Chains(BTreeMap<String, BTreeSet<String>>);

impl Chains {
    /// Lists them.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn list(store: &dyn ObjectStore) -> Result<Self, ObjectError> {
        let tables = folders(store, INTENTS).await?;
        let topics: Vec<(String, Vec<String>)> = stream::iter(tables)
            .map(|table| async {
                let topics = folders(store, &table).await?;
                Ok::<_, ObjectError>((table, topics))
            })
            .buffer_unordered(LISTINGS_AT_ONCE)
            .try_collect()
            .await?;
        let mut chains = Self::default();
        for (table, topics) in &topics {
            let uuid = name_below(table, INTENTS).unwrap_or_default();
            for topic in topics.iter().filter_map(|topic| name_below(topic, table)) {
                let tables = chains.0.entry(topic.to_owned()).or_default();
                tables.insert(uuid.to_owned());
            }
        }
        Ok(chains)
    }

    /// Other tables than this one that the topic has fed: dropped, or made anew.
    pub(crate) fn former(&self, topic: &str, table_uuid: &str) -> Vec<&str> {
        let tables = self.0.get(topic).into_iter().flatten();
        tables
            .map(String::as_str)
            .filter(|uuid| *uuid != table_uuid)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use object_io::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn each_folder_is_found_once_whatever_stands_beside_it() {
        let store = MemoryStore::new("b");
        for key in [
            "i/a/1", "i/a/2/x", "i/a-b/1", "i/a.b/1", "i/a0/1", "i/stray", "i/z/1", "j/1",
        ] {
            store.put(key, "".into()).await.unwrap();
        }
        let found = folders(&store, "i/").await.unwrap();
        assert_eq!(found, ["i/a-b/", "i/a.b/", "i/a/", "i/a0/", "i/z/"]);
        assert_eq!(folders(&store, "i/z/").await.unwrap(), [""; 0]);
    }
}
