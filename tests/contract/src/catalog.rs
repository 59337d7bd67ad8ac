//! The contract of [`Catalog`].

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use iceberg::spec::TableMetadata;
use table_commit::{Catalog, CreateOutcome, Pointer, PointerVersion, SwapOutcome, TableName};

use crate::{Breach, require, unexpected};

/// Tasks that race for the pointer.
const RACERS: u32 = 4;
/// Moves that each of them makes.
const MOVES: u32 = 5;

/// Everything that the port promises, on a table that is not there yet in a database that is.
///
/// The pointer is moved to addresses where no file is: a catalog does not look there.
///
/// # Errors
/// The first breach.
pub async fn catalog_suite(
    catalog: Arc<dyn Catalog>,
    table: &TableName,
    metadata: &TableMetadata,
) -> Result<(), Breach> {
    let metadata = Arc::new(metadata.clone());
    creates_once(&catalog, table, &metadata).await?;
    moves_from_the_version_given(catalog.as_ref(), table, &metadata).await?;
    every_move_counts_once(&catalog, table, &metadata).await
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

async fn moves_from_the_version_given(
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
    let stale = swap(catalog, table, &first, &third, metadata).await?;
    require(
        stale == SwapOutcome::Conflict,
        format!("move from a stale version gives {stale:?}"),
    )?;
    let now = current(catalog, table).await?;
    require(
        now.metadata_location == second,
        "a refused move moved the pointer",
    )?;
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
    )?;
    let empty = Pointer {
        version: PointerVersion(String::new()),
        ..bare
    };
    let unconditional = catalog.swap(table, &empty, &second, metadata).await;
    require(
        !matches!(unconditional, Ok(SwapOutcome::Swapped)),
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
