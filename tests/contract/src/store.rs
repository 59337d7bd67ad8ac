//! The contract of [`ObjectStore`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use object_io::{ObjectStore, PutOutcome, VerifiedPut, put_if_absent_verified};

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
    deletes(store.as_ref(), prefix).await?;
    verifies(store.as_ref(), prefix).await?;
    for race in 0..RACES {
        one_racer_wins(&store, &format!("{prefix}race/{race}")).await?;
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

async fn lists_in_byte_order(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    for name in ["b/2", "b/10", "b.c", "a", "B"] {
        put(store, &format!("{prefix}list/{name}"), name).await?;
    }
    put(store, &format!("{prefix}listed"), "beside").await?;
    let list = |prefix: String| async move {
        store
            .list(&prefix)
            .await
            .map_err(|error| unexpected("list", &error))
    };
    let expected = ["B", "a", "b.c", "b/10", "b/2"].map(|name| format!("{prefix}list/{name}"));
    let found = list(format!("{prefix}list/")).await?;
    require(found == expected, format!("listing gives {found:?}"))?;
    require(
        list(format!("{prefix}list/b/")).await?.len() == 2,
        "listing of a prefix that is a folder",
    )?;
    require(
        list(format!("{prefix}list/b")).await?.len() == 3,
        "listing of a prefix that is no folder",
    )?;
    require(
        list(format!("{prefix}nothing/")).await?.is_empty(),
        "listing of nothing",
    )
}

async fn deletes(store: &dyn ObjectStore, prefix: &str) -> Result<(), Breach> {
    let key = format!("{prefix}gone");
    put(store, &key, "here").await?;
    for _ in 0..2 {
        store
            .delete(&key)
            .await
            .map_err(|error| unexpected("delete", &error))?;
    }
    require(
        get(store, &key).await?.is_none(),
        "a deleted object is there",
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
