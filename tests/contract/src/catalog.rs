//! The contract of [`Catalog`].

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use iceberg::spec::TableMetadata;
use table_commit::{Catalog, CreateOutcome, Pointer, PointerVersion, SwapOutcome, TableName};

use crate::{Breach, require, unexpected};

/// Tasks that race for the pointer.
const RACERS: u32 = 8;
/// Moves that each of them makes.
const MOVES: u32 = 5;

/// Everything that the port promises, on a table that is not there yet in a database that is: each case's name and its
/// breach, if there is one. A case does not depend on how those before it ended, as long as the table was made.
///
/// The pointer is moved to addresses where no file is: a catalog does not look there.
pub async fn catalog_cases(
    catalog: Arc<dyn Catalog>,
    table: &TableName,
    metadata: &TableMetadata,
) -> Vec<(&'static str, Result<(), Breach>)> {
    let metadata = &Arc::new(metadata.clone());
    let one = catalog.as_ref();
    vec![
        (
            "creates once",
            creates_once(&catalog, table, metadata).await,
        ),
        ("moves", moves(one, table, metadata).await),
        (
            "refuses a stale version",
            refuses_a_stale_version(one, table, metadata).await,
        ),
        (
            "lands once unheard",
            lands_once_unheard(one, table, metadata).await,
        ),
        (
            "refuses no version",
            refuses_no_version(one, table, metadata).await,
        ),
        (
            "counts every move once",
            every_move_counts_once(&catalog, table, metadata).await,
        ),
    ]
}

/// The cases as one.
///
/// # Errors
/// The first breach.
pub async fn catalog_suite(
    catalog: Arc<dyn Catalog>,
    table: &TableName,
    metadata: &TableMetadata,
) -> Result<(), Breach> {
    for (case, ended) in catalog_cases(catalog, table, metadata).await {
        ended.map_err(|breach| format!("{case}: {breach}"))?;
    }
    Ok(())
}

async fn pointer(catalog: &dyn Catalog, table: &TableName) -> Result<Option<Pointer>, Breach> {
    catalog
        .pointer(table)
        .await
        .map_err(|error| unexpected("pointer", &error))
}

async fn current(catalog: &dyn Catalog, table: &TableName) -> Result<Pointer, Breach> {
    pointer(catalog, table)
        .await?
        .ok_or_else(|| "the table is gone".to_owned())
}

fn location(metadata: &TableMetadata, name: &str) -> String {
    format!("{}/metadata/{name}.metadata.json", metadata.location())
}

async fn creates_once(
    catalog: &Arc<dyn Catalog>,
    table: &TableName,
    metadata: &Arc<TableMetadata>,
) -> Result<(), Breach> {
    require(
        pointer(catalog.as_ref(), table).await?.is_none(),
        "a table that nobody made",
    )?;
    let racers = (0..RACERS).map(|racer| {
        let (catalog, table, metadata) = (Arc::clone(catalog), table.clone(), Arc::clone(metadata));
        tokio::spawn(async move {
            let location = location(&metadata, &format!("created-{racer}"));
            let outcome = catalog.create(&table, &location, &metadata).await;
            outcome
                .map(|outcome| (location, outcome))
                .map_err(|error| unexpected("create", &error))
        })
    });
    let mut winners = Vec::new();
    for outcome in join_all(racers).await {
        let (location, outcome) = outcome.map_err(|error| unexpected("racer", &error))??;
        if outcome == CreateOutcome::Created {
            winners.push(location);
        }
    }
    let found = current(catalog.as_ref(), table).await?.metadata_location;
    require(
        winners == [found],
        format!("{} of {RACERS} created the table", winners.len()),
    )
}

async fn swap(
    catalog: &dyn Catalog,
    table: &TableName,
    from: &Pointer,
    location: &str,
    metadata: &TableMetadata,
) -> Result<SwapOutcome, Breach> {
    let swap = catalog.swap(table, from, location, metadata).await;
    swap.map_err(|error| unexpected("swap", &error))
}

async fn moves(
    catalog: &dyn Catalog,
    table: &TableName,
    metadata: &TableMetadata,
) -> Result<(), Breach> {
    let first = current(catalog, table).await?;
    let (second, third) = (location(metadata, "second"), location(metadata, "third"));
    let moved = swap(catalog, table, &first, &second, metadata).await?;
    require(
        moved == SwapOutcome::Swapped,
        format!("move gives {moved:?}"),
    )?;
    let now = current(catalog, table).await?;
    require(now.metadata_location == second, "a move moved nothing")?;
    require(now.version != first.version, "the version stands still")?;
    // Also without the adapter's own record of the table.
    let bare = Pointer {
        record: None,
        ..now
    };
    let moved = swap(catalog, table, &bare, &third, metadata).await?;
    require(
        moved == SwapOutcome::Swapped,
        format!("move without a record gives {moved:?}"),
    )
}

async fn refuses_a_stale_version(
    catalog: &dyn Catalog,
    table: &TableName,
    metadata: &TableMetadata,
) -> Result<(), Breach> {
    let stale = current(catalog, table).await?;
    let (newer, refused) = (location(metadata, "newer"), location(metadata, "refused"));
    swap(catalog, table, &stale, &newer, metadata)
        .await
        .map(drop)?;
    let outcome = swap(catalog, table, &stale, &refused, metadata).await?;
    require(
        outcome == SwapOutcome::Conflict,
        format!("move from a stale version gives {outcome:?}"),
    )?;
    require(
        current(catalog, table).await?.metadata_location == newer,
        "a refused move moved the pointer",
    )
}

/// A caller that heard no answer reads its own address back, and its attempt cannot land a second time.
async fn lands_once_unheard(
    catalog: &dyn Catalog,
    table: &TableName,
    metadata: &TableMetadata,
) -> Result<(), Breach> {
    let from = current(catalog, table).await?;
    let ours = location(metadata, "unheard");
    swap(catalog, table, &from, &ours, metadata)
        .await
        .map(drop)?;
    let now = current(catalog, table).await?;
    require(
        now.metadata_location == ours,
        "an unheard move cannot be read back",
    )?;
    let others = location(metadata, "others");
    swap(catalog, table, &now, &others, metadata)
        .await
        .map(drop)?;
    let again = swap(catalog, table, &from, &ours, metadata).await?;
    require(
        again == SwapOutcome::Conflict
            && current(catalog, table).await?.metadata_location == others,
        format!("an attempt that landed before gives {again:?} and undoes another's"),
    )
}

async fn refuses_no_version(
    catalog: &dyn Catalog,
    table: &TableName,
    metadata: &TableMetadata,
) -> Result<(), Breach> {
    let before = current(catalog, table).await?;
    let empty = Pointer {
        version: PointerVersion(String::new()),
        ..before.clone()
    };
    let to = location(metadata, "unconditional");
    let outcome = catalog.swap(table, &empty, &to, metadata).await;
    let now = current(catalog, table).await?;
    require(
        !matches!(outcome, Ok(SwapOutcome::Swapped))
            && now.metadata_location == before.metadata_location,
        "a move without a version to compare went through",
    )
}

/// Racing tasks each add one to a number in the pointer's address until each has done it so often: none is lost.
async fn every_move_counts_once(
    catalog: &Arc<dyn Catalog>,
    table: &TableName,
    metadata: &Arc<TableMetadata>,
) -> Result<(), Breach> {
    let start = current(catalog.as_ref(), table).await?;
    let zero = location(metadata, "count-0");
    require(
        swap(catalog.as_ref(), table, &start, &zero, metadata).await? == SwapOutcome::Swapped,
        "an uncontended move does not go through",
    )?;
    let racers = (0..RACERS).map(|_| {
        let (catalog, table, metadata) = (Arc::clone(catalog), table.clone(), Arc::clone(metadata));
        tokio::spawn(async move {
            let mut won: HashMap<u32, u32> = HashMap::new();
            while won.len() < usize::try_from(MOVES).unwrap_or(usize::MAX) {
                let from = current(catalog.as_ref(), &table).await?;
                let next = count(&from.metadata_location)? + 1;
                let to = location(&metadata, &format!("count-{next}"));
                if swap(catalog.as_ref(), &table, &from, &to, &metadata).await?
                    == SwapOutcome::Swapped
                {
                    *won.entry(next).or_default() += 1;
                }
            }
            Ok::<_, Breach>(won)
        })
    });
    let mut won: HashMap<u32, u32> = HashMap::new();
    for racer in join_all(racers).await {
        for (number, times) in racer.map_err(|error| unexpected("racer", &error))?? {
            *won.entry(number).or_default() += times;
        }
    }
    let each_once = (1..=RACERS * MOVES).all(|number| won.get(&number) == Some(&1));
    require(each_once, format!("moves won per number: {won:?}"))?;
    let last = count(&current(catalog.as_ref(), table).await?.metadata_location)?;
    require(
        last == RACERS * MOVES,
        format!("{last} of {} moves are left", RACERS * MOVES),
    )
}

fn count(location: &str) -> Result<u32, Breach> {
    let digits = location
        .rsplit("count-")
        .next()
        .and_then(|rest| rest.split('.').next());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("pointer at {location}"))
}
