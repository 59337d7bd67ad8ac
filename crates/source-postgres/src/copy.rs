//! The copy of one table inside of an exported snapshot.
//!
//! Flow: [`crate::Connection::create_slot`] exports a snapshot -> **here**, a connection of its own per table -> rows of cells.
//!
//! # Invariants
//! - Columns are those of the snapshot, and rows too: a table that was rewritten, truncated or altered since is an error, never an
//!   empty or a newer table.
//! - A value has the text that the stream would give it.
//! - One row at a time is in memory, beside the read buffer.
//!
//! # Source
//! PostgreSQL manual, "COPY: Text Format"; "Caveats" of its MVCC chapter: after a rewrite or TRUNCATE a table is empty to older
//! snapshots. The server sends one `CopyData` frame per row ("COPY Operations").

use bytes::Buf as _;
use change_event::Cell;

use crate::catalog::{CatalogColumn, CatalogTable, TableKind, TableName, read_table};
use crate::client::{Connection, first, quote_identifier, quote_literal};
use crate::config::ConnectOptions;
use crate::error::{Answering, SourceError};
use crate::wire::{FRAME_HEADER_BYTES, server_message};

/// A copy of one table, open at its snapshot.
#[derive(Debug)]
pub struct TableCopy {
    connection: Connection,
    table: CatalogTable,
    columns: Vec<CatalogColumn>,
    state: CopyState,
    /// Size of the frame at the front of the buffer whose row was given out.
    consumed: usize,
    row_count: u64,
    text: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyState {
    Opened,
    Running,
    Ended,
    /// The server refused to go on: the end that follows is not the end of the table.
    Failed,
}

/// Where a value stands in the text of a row; `None` for NULL.
type Field = Option<(usize, usize)>;

/// One row of a copy.
#[derive(Debug, Clone, Copy)]
pub struct CopyRow<'a> {
    text: &'a str,
    fields: &'a [Field],
}

impl<'a> CopyRow<'a> {
    /// One cell per live column of the table, in its order.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = Cell<'a>> + Clone + use<'a> {
        let text = self.text;
        self.fields.iter().map(move |field| {
            // Fields end at tabs and escapes, so they are always at the bounds of characters.
            field.map_or(Cell::Null, |(from, to)| {
                Cell::Text(text.get(from..to).unwrap_or(""))
            })
        })
    }

    /// Size of the values of the row, in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.text.len()
    }
}

impl TableCopy {
    /// Connects, enters the snapshot, and reads what the table looks like in it.
    ///
    /// The snapshot has to be alive until this returns; after that the copy has it for itself.
    ///
    /// # Errors
    /// [`SourceError::SnapshotGone`], [`SourceError::TableChanged`] (Refresh: a new snapshot is needed), [`SourceError::TableMissing`]
    /// (Halt), and those of [`Connection::connect`].
    pub async fn begin(
        options: &ConnectOptions,
        snapshot: &str,
        name: &TableName,
    ) -> Result<Self, SourceError> {
        let mut connection = Connection::connect(options).await?;
        connection
            .query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let sql = format!("SET TRANSACTION SNAPSHOT {}", quote_literal(snapshot));
        connection
            .command(&sql, Answering::SetSnapshot { snapshot })
            .await?;
        let table =
            read_table(&mut connection, name)
                .await?
                .ok_or_else(|| SourceError::TableMissing {
                    table: name.to_string(),
                })?;
        lock_unchanged(&mut connection, &table).await?;
        check_columns(options, &table).await?;
        let columns = table.live_columns().cloned().collect();
        Ok(Self {
            connection,
            table,
            columns,
            state: CopyState::Opened,
            consumed: 0,
            row_count: 0,
            text: Vec::new(),
            fields: Vec::new(),
        })
    }

    /// The table in the snapshot; [`crate::relation::observe_catalog`] gives its shape.
    #[must_use]
    pub const fn table(&self) -> &CatalogTable {
        &self.table
    }

    /// Rows given so far.
    #[must_use]
    pub const fn row_count(&self) -> u64 {
        self.row_count
    }

    /// The next row; `None` after the last. It borrows the copy's buffer until the next call. Not cancel safe before the first row.
    ///
    /// # Errors
    /// [`SourceError::MalformedCopyRow`] (Quarantine; the next call gives the next row), [`SourceError::TableChanged`] (Refresh),
    /// [`SourceError::ConnectionLost`] (Retry: the whole copy starts over with a new snapshot) and others.
    pub async fn next_row(&mut self) -> Result<Option<CopyRow<'_>>, SourceError> {
        if self.state == CopyState::Opened {
            self.start().await?;
        }
        match self.state {
            CopyState::Ended => return Ok(None),
            CopyState::Failed => return Err(SourceError::ConnectionClosed),
            CopyState::Opened | CopyState::Running => {}
        }
        let Some(size) = self.wait_row().await? else {
            return Ok(None);
        };
        self.consumed = size;
        self.row_count += 1;
        let line = self
            .connection
            .wire
            .incoming
            .get(FRAME_HEADER_BYTES..size)
            .unwrap_or_default();
        let read = read_row(line, self.columns.len(), &mut self.text, &mut self.fields);
        let text = read.and_then(|()| str::from_utf8(&self.text).map_err(|_source| "not UTF-8"));
        match text {
            Ok(text) => Ok(Some(CopyRow {
                text,
                fields: &self.fields,
            })),
            Err(what) => Err(SourceError::MalformedCopyRow {
                table: self.table.name.to_string(),
                row: self.row_count - 1,
                what,
            }),
        }
    }

    async fn start(&mut self) -> Result<(), SourceError> {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| quote_identifier(&column.name))
            .collect();
        // Rows of tables that inherit from this one are not its rows; those of partitions are.
        let only = match self.table.kind {
            TableKind::Plain => "ONLY ",
            TableKind::Partitioned => "",
        };
        let from = self.table.name.quoted();
        let sql = format!(
            "COPY (SELECT {} FROM {only}{from}) TO STDOUT",
            names.join(", ")
        );
        self.connection.send(&sql).await?;
        self.state = CopyState::Running;
        Ok(())
    }

    /// Waits for the frame of the next row; gives its size, or `None` at the end.
    async fn wait_row(&mut self) -> Result<Option<usize>, SourceError> {
        loop {
            self.connection.wire.incoming.advance(self.consumed);
            self.consumed = 0;
            let (tag, size) = self.connection.wire.wait_frame().await?;
            if tag == b'd' {
                return Ok(Some(size));
            }
            let frame = self.connection.wire.frame().await?;
            match frame.tag {
                b'E' => {
                    let table = self.table.name.to_string();
                    let answering = Answering::Copy { table: &table };
                    self.state = CopyState::Failed;
                    return Err(answering.error(server_message(&frame.body, answering)));
                }
                b'Z' => {
                    self.connection.busy = false;
                    self.state = CopyState::Ended;
                    return Ok(None);
                }
                b'H' | b'c' | b'C' | b'N' | b'S' => {}
                _ => {
                    return Err(SourceError::Protocol {
                        what: "unexpected frame in a copy",
                    });
                }
            }
        }
    }
}

/// Locks the table against further changes of shape, and checks that there was none since the snapshot.
///
/// `pg_class` is read as of the snapshot, `pg_relation_filenode` as of now: another file means that the table was rewritten.
async fn lock_unchanged(
    connection: &mut Connection,
    table: &CatalogTable,
) -> Result<(), SourceError> {
    let name = table.name.to_string();
    let answering = Answering::Copy { table: &name };
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", table.name.quoted());
    connection.command(&lock, answering).await?;
    let sql = format!(
        "SELECT count(*) FROM (SELECT {oid}::regclass AS relid
                               UNION SELECT relid FROM pg_partition_tree({oid})) t
         LEFT JOIN pg_class c ON c.oid = t.relid
         WHERE pg_relation_filenode(t.relid) IS DISTINCT FROM nullif(c.relfilenode, 0)",
        oid = table.oid
    );
    let rows = connection.command(&sql, answering).await?;
    match first(&rows)?.parse::<u64>(0)? {
        0 => Ok(()),
        _ => Err(SourceError::TableChanged { table: name }),
    }
}

/// Checks that the locked table has the columns that it had in the snapshot: COPY finds them by the names they have now.
///
/// On a connection of its own, for the copy's sees the catalog as of its snapshot.
async fn check_columns(options: &ConnectOptions, table: &CatalogTable) -> Result<(), SourceError> {
    let mut beside = Connection::connect(options).await?;
    let now = read_table(&mut beside, &table.name).await?;
    let same =
        now.is_some_and(|now| now.oid == table.oid && now.live_columns().eq(table.live_columns()));
    if same {
        Ok(())
    } else {
        Err(SourceError::TableChanged {
            table: table.name.to_string(),
        })
    }
}

/// Reads one line of COPY's text format into `text` and `fields`; both are replaced.
fn read_row(
    line: &[u8],
    column_count: usize,
    text: &mut Vec<u8>,
    fields: &mut Vec<Field>,
) -> Result<(), &'static str> {
    text.clear();
    fields.clear();
    let mut rest = line.strip_suffix(b"\n").ok_or("no end of line")?;
    if column_count == 0 {
        return if rest.is_empty() {
            Ok(())
        } else {
            Err("values without columns")
        };
    }
    loop {
        let behind = if let Some(behind) = null_field(rest) {
            fields.push(None);
            behind
        } else {
            let from = text.len();
            let behind = read_field(rest, text)?;
            fields.push(Some((from, text.len())));
            behind
        };
        let Some(behind) = behind else { break };
        rest = behind;
    }
    if fields.len() == column_count {
        Ok(())
    } else {
        Err("another number of columns")
    }
}

/// If the field is NULL, what follows its tab; the inner `None` at the end of the line.
fn null_field(rest: &[u8]) -> Option<Option<&[u8]>> {
    match rest.strip_prefix(b"\\N")? {
        [] => Some(None),
        [b'\t', behind @ ..] => Some(Some(behind)),
        _ => None,
    }
}

/// Appends the value of a field to `text`; gives what follows its tab.
fn read_field<'a>(
    mut rest: &'a [u8],
    text: &mut Vec<u8>,
) -> Result<Option<&'a [u8]>, &'static str> {
    loop {
        let Some(at) = memchr::memchr2(b'\t', b'\\', rest) else {
            text.extend_from_slice(rest);
            return Ok(None);
        };
        let (plain, special) = rest.split_at(at);
        text.extend_from_slice(plain);
        match special {
            [b'\t', behind @ ..] => return Ok(Some(behind)),
            [_backslash, escaped, behind @ ..] => rest = read_escape(*escaped, behind, text)?,
            _ => return Err("a backslash at the end"),
        }
    }
}

/// Appends what an escape stands for; gives what follows it.
fn read_escape<'a>(
    escaped: u8,
    behind: &'a [u8],
    text: &mut Vec<u8>,
) -> Result<&'a [u8], &'static str> {
    let plain = match escaped {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0B,
        b'0'..=b'7' => return numeric_escape(8, 3, Some(escaped), behind, text),
        b'x' if behind.first().is_some_and(u8::is_ascii_hexdigit) => {
            return numeric_escape(16, 2, None, behind, text);
        }
        other => other,
    };
    text.push(plain);
    Ok(behind)
}

fn numeric_escape<'a>(
    radix: u32,
    digit_count_max: usize,
    first_digit: Option<u8>,
    behind: &'a [u8],
    text: &mut Vec<u8>,
) -> Result<&'a [u8], &'static str> {
    let digit = |byte: &u8| char::from(*byte).to_digit(radix);
    let mut value = first_digit.as_ref().and_then(digit).unwrap_or(0);
    let more = digit_count_max - usize::from(first_digit.is_some());
    let used = behind
        .iter()
        .take(more)
        .take_while(|byte| digit(byte).is_some())
        .count();
    let (digits, behind) = behind.split_at(used);
    for found in digits.iter().filter_map(digit) {
        value = value * radix + found;
    }
    // As the server reads it: only the low byte counts.
    text.push(u8::try_from(value & 0xFF).map_err(|_source| "a number that is no byte")?);
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(line: &[u8], column_count: usize) -> Result<Vec<Option<String>>, &'static str> {
        let (mut text, mut fields) = (Vec::new(), Vec::new());
        read_row(line, column_count, &mut text, &mut fields)?;
        let row = CopyRow {
            text: str::from_utf8(&text).unwrap(),
            fields: &fields,
        };
        Ok(row
            .cells()
            .map(|cell| match cell {
                Cell::Text(text) => Some(text.to_owned()),
                Cell::Null | Cell::Unavailable => None,
            })
            .collect())
    }

    #[test]
    fn null_empty_and_escaped_values_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(row(b"\\N\t\ta\n", 3), Ok(vec![None, some(""), some("a")]));
        assert_eq!(row(b"\\\\N\t\\N\n", 2), Ok(vec![some("\\N"), None]));
        let all = b"a\\tb\\nc\\\\d\\b\\f\\v\\r\\x41\\101\\q\n";
        assert_eq!(
            row(all, 1),
            Ok(vec![some("a\tb\nc\\d\u{8}\u{c}\u{b}\rAAq")])
        );
        assert_eq!(row(b"\n", 0), Ok(vec![]));
        assert_eq!(row(b"\n", 1), Ok(vec![some("")]));
    }

    #[test]
    fn line_of_another_shape_is_an_error() {
        for (line, count) in [
            (&b"a\tb\n"[..], 1),
            (b"a\n", 2),
            (b"a", 1),
            (b"a\\", 1),
            (b"a\\\n", 1),
        ] {
            assert!(row(line, count).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_gives_a_row_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (mut text, mut fields) = (Vec::new(), Vec::new());
            if read_row(&line, 2, &mut text, &mut fields).is_ok() {
                prop_assert_eq!(fields.len(), 2);
            }
        }
    }
}
