//! The contract of [`ObjectStore`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use object_io::{
    ListPage, ListedObject, ObjectError, ObjectStore, PutOutcome, VerifiedPut,
    put_if_absent_verified,
};

use crate::{Breach, require, unexpected};

/// Tasks that race for one key.
const RACERS: usize = 16;
/// Keys raced for.
const RACES: usize = 8;

/// Everything that the port promises, on keys below `prefix` (which ends with `/` and holds nothing yet).
///
/// # Errors
/// The first breach.
pub async fn store_suite(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<(), Breach> {
    reads_what_was_written(store.as_ref(), prefix).await?;
    creates_once(store.as_ref(), prefix).await?;
    lists_in_byte_order(store.as_ref(), prefix).await?;
    lists_in_pages(store.as_ref(), prefix).await?;
    lists_size_and_date(store.as_ref(), prefix).await?;
    deletes(store.as_ref(), prefix).await?;
    verifies(store.as_ref(), prefix).await?;
    for race in 0..RACES {
        one_racer_wins(&store, &format!("{prefix}race/{race}")).await?;
        one_racer_wins_unheard(&store, &format!("{prefix}unheard/{race}")).await?;
        deletion_brings_nobodys_body(&store, &format!("{prefix}deleted-race/{race}")).await?;
    }
    Ok(())
}

async fn get(store: &dyn ObjectStore, key: &str) -> Result<Option<Bytes>, Breach> {
    store
        .get(key)
        .await
        .map_err(|error| unexpected("get", &error))
}

async fn put(store: &dyn ObjectStore, key: &str, body: &'static str) -> Result<(), Breach> {
    store
        .put(key, Bytes::from(body))
        .await
        .map_err(|error| unexpected("put", &error))
}

async fn create(store: &dyn ObjectStore, key: &str, body: String) -> Result<PutOutcome, Breach> {
    let put = store.put_if_absent(key, Bytes::from(body)).await;
    put.map_err(|error| unexpected("put_if_absent", &error))
}

async fn reads_what_was_written(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let key = format!("{prefix}a/b.json");
    require(
        get(store, &key).await?.is_none(),
        "an object that nobody wrote",
    )?;
    put(store, &key, "one").await?;
    require(
        get(store, &key).await? == Some("one".into()),
        "get after put gives another body",
    )?;
    put(store, &key, "two").await?;
    require(
        get(store, &key).await? == Some("two".into()),
        "put does not replace",
    )?;
    put(store, &format!("{prefix}empty"), "").await?;
    require(
        get(store, &format!("{prefix}empty")).await? == Some(Bytes::new()),
        "an empty object is lost",
    )
}

async fn creates_once(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let key = format!("{prefix}once");
    let first = create(store, &key, "first".to_owned()).await?;
    require(
        first == PutOutcome::Created,
        format!("creation gives {first:?}"),
    )?;
    let second = create(store, &key, "second".to_owned()).await?;
    require(
        second == PutOutcome::Exists,
        format!("second creation gives {second:?}"),
    )?;
    require(
        get(store, &key).await? == Some("first".into()),
        "a refused creation left its body",
    )
}

async fn list(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<ListedObject>, Breach> {
    store
        .list(prefix)
        .await
        .map_err(|error| unexpected("list", &error))
}

fn keys(objects: Vec<ListedObject>) -> Vec<String> {
    objects.into_iter().map(|object| object.key).collect()
}

/// Names below `list/`, in byte order.
const LISTED: [&str; 5] = ["B", "a", "b.c", "b/10", "b/2"];

async fn lists_in_byte_order(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    for name in LISTED.into_iter().rev() {
        put(store, &format!("{prefix}list/{name}"), name).await?;
    }
    put(store, &format!("{prefix}listed"), "beside").await?;
    let expected = LISTED.map(|name| format!("{prefix}list/{name}"));
    let found = keys(list(store, &format!("{prefix}list/")).await?);
    require(found == expected, format!("listing gives {found:?}"))?;
    require(
        list(store, &format!("{prefix}list/b/")).await?.len() == 2,
        "listing of a prefix that is a folder",
    )?;
    require(
        list(store, &format!("{prefix}list/b")).await?.len() == 3,
        "listing of a prefix that is no folder",
    )?;
    require(
        list(store, &format!("{prefix}nothing/")).await?.is_empty(),
        "listing of nothing",
    )
}

async fn lists_in_pages(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let folder = format!("{prefix}list/");
    let mut found: Vec<String> = Vec::new();
    loop {
        let page = store.list_page(&folder, found.last().map(String::as_str), 2);
        let page = page
            .await
            .map_err(|error| unexpected("list_page", &error))?;
        let left = LISTED.len() - found.len();
        require(
            page.objects.len() == left.min(2) && page.truncated == (left > 2),
            format!("page behind {:?} is {page:?}", found.last()),
        )?;
        found.extend(keys(page.objects));
        if !page.truncated {
            break;
        }
    }
    let expected = LISTED.map(|name| format!("{folder}{name}"));
    require(found == expected, format!("pages give {found:?}"))?;
    // Behind a key that is not there, and behind everything that begins with it.
    for (after, left) in [("A", 5), ("b", 3), ("b/~", 0)] {
        let after = format!("{folder}{after}");
        let page = store.list_page(&folder, Some(&after), 10).await;
        let page = page.map_err(|error| unexpected("list_page", &error))?;
        require(
            page.objects.len() == left && !page.truncated,
            format!("page behind {after} is {page:?}"),
        )?;
    }
    Ok(())
}

async fn lists_size_and_date(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let folder = format!("{prefix}dated/");
    put(store, &format!("{folder}1"), "one").await?;
    put(store, &format!("{folder}2"), "three").await?;
    let before = list(store, &folder).await?;
    let sizes: Vec<u64> = before.iter().map(|object| object.size_bytes).collect();
    require(sizes == [3, 5], format!("listing gives sizes {sizes:?}"))?;
    let dates: Vec<i64> = before.iter().map(|object| object.modified_ms).collect();
    require(
        dates.is_sorted() && dates.iter().all(|date| (1..i64::MAX).contains(date)),
        format!("listing dates two writes in order as {dates:?}"),
    )?;
    put(store, &format!("{folder}1"), "other").await?;
    let after = list(store, &folder).await?;
    let (first, second) = (after.first(), after.last());
    require(
        first.map(|object| object.modified_ms) >= dates.last().copied() && second == before.last(),
        format!("a write after {before:?} gives {after:?}"),
    )
}

async fn delete(store: &dyn ObjectStore, key: &str) -> Result<(), Breach> {
    let deleted = store.delete(key).await;
    deleted.map_err(|error| unexpected("delete", &error))
}

async fn deletes(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let folder = format!("{prefix}deleted/");
    let key = format!("{folder}gone");
    for name in ["gone", "gone.too", "gon"] {
        put(store, &format!("{folder}{name}"), "here").await?;
    }
    for _ in 0..2 {
        delete(store, &key).await?;
    }
    require(
        get(store, &key).await?.is_none(),
        "a deleted object is there",
    )?;
    let left = keys(list(store, &folder).await?);
    require(
        left == ["gon", "gone.too"].map(|name| format!("{folder}{name}")),
        format!("deletion of {key} leaves {left:?}"),
    )?;
    let again = create(store, &key, "again".to_owned()).await?;
    require(
        again == PutOutcome::Created,
        format!("creation after deletion gives {again:?}"),
    )
}

async fn verifies(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let key = format!("{prefix}verified");
    for (body, expected) in [
        ("mine", VerifiedPut::Created),
        ("mine", VerifiedPut::Created),
        ("other", VerifiedPut::ExistsOther("mine".into())),
    ] {
        let put = put_if_absent_verified(store, &key, Bytes::from(body)).await;
        let found = put.map_err(|error| unexpected("put_if_absent_verified", &error))?;
        require(
            found == expected,
            format!("verified creation of {body} gives {found:?}"),
        )?;
    }
    Ok(())
}

/// A store whose answers to creations are lost on the way.
#[derive(Debug)]
struct Unheard(Arc<dyn ObjectStore>);

#[async_trait]
impl ObjectStore for Unheard {
    fn uri_prefix(&self) -> &str {
        self.0.uri_prefix()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.0.get(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        self.0.put_if_absent(key, body).await.map(drop)?;
        Ok(PutOutcome::Unknown)
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.0.put(key, body).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.0.list_page(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.delete(key).await
    }
}

/// Of many that create one key at once and hear no answer, each knows by reading back whose object it is.
async fn one_racer_wins_unheard(store: &Arc<dyn ObjectStore>, key: &str) -> Result<(), Breach> {
    let racers = (0..RACERS).map(|racer| {
        let (store, key) = (Unheard(Arc::clone(store)), key.to_owned());
        tokio::spawn(async move {
            let body = Bytes::from(format!("racer {racer}"));
            let put = put_if_absent_verified(&store, &key, body.clone()).await;
            let put = put.map_err(|error| unexpected("put_if_absent_verified", &error))?;
            Ok::<_, Breach>((body, put))
        })
    });
    let (mut winners, mut seen) = (Vec::new(), Vec::new());
    for racer in join_all(racers).await {
        let (body, put) = racer.map_err(|error| unexpected("racer", &error))??;
        match put {
            VerifiedPut::Created => winners.push(body),
            VerifiedPut::ExistsOther(other) => seen.push(other),
            VerifiedPut::Unknown => return Err(format!("{key} cannot be read back")),
        }
    }
    let [winner] = winners.as_slice() else {
        return Err(format!(
            "{} of {RACERS} unheard created {key}",
            winners.len()
        ));
    };
    require(
        seen.iter().all(|other| other == winner),
        "who lost read another body than the winner's",
    )
}

/// Creations and deletions of one key at once: what is there at the end was written by one who was not told
/// otherwise.
async fn deletion_brings_nobodys_body(
    store: &Arc<dyn ObjectStore>,
    key: &str,
) -> Result<(), Breach> {
    let racers = (0..RACERS).map(|racer| {
        let (store, key) = (Arc::clone(store), key.to_owned());
        tokio::spawn(async move {
            if racer % 2 == 1 {
                delete(store.as_ref(), &key).await?;
                return Ok(None);
            }
            let body = format!("racer {racer}");
            let outcome = create(store.as_ref(), &key, body.clone()).await?;
            Ok::<_, Breach>((outcome != PutOutcome::Exists).then(|| Bytes::from(body)))
        })
    });
    let mut written = Vec::new();
    for outcome in join_all(racers).await {
        written.extend(outcome.map_err(|error| unexpected("racer", &error))??);
    }
    let found = get(store.as_ref(), key).await?;
    require(
        !written.is_empty() && found.is_none_or(|body| written.contains(&body)),
        format!("{key} holds what nobody was told to have created"),
    )
}

/// Of many that create one key at once, exactly one is told that it did, and its body is there.
async fn one_racer_wins(store: &Arc<dyn ObjectStore>, key: &str) -> Result<(), Breach> {
    let racers = (0..RACERS).map(|racer| {
        let (store, key) = (Arc::clone(store), key.to_owned());
        tokio::spawn(async move { create(store.as_ref(), &key, format!("racer {racer}")).await })
    });
    let mut winners = Vec::new();
    for (racer, outcome) in join_all(racers).await.into_iter().enumerate() {
        let outcome = outcome.map_err(|error| unexpected("racer", &error))??;
        if outcome == PutOutcome::Created {
            winners.push(racer);
        }
    }
    let [winner] = winners.as_slice() else {
        return Err(format!("{} of {RACERS} created {key}", winners.len()));
    };
    let expected = Bytes::from(format!("racer {winner}"));
    require(
        get(store.as_ref(), key).await? == Some(expected),
        "the winner's body is not there",
    )
}
