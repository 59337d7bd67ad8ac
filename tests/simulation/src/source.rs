//! The source database: a script of transactions, their log as pgoutput prints it, the slot, and what the lake must hold.
//!
//! # Invariants
//! - What is expected is written down as the script is drawn, by nothing that the agent does.
//! - A stream begins with the first transaction that commits at or after what was asked for and what the slot confirmed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use change_event::{Lsn, Position};
use source_postgres::Frame;

use crate::choice::{Choices, Stream};

/// First number of a table; the others follow.
pub(crate) const FIRST_OID: u32 = 16_384;
/// Incarnation of the source's log.
pub(crate) const INCARNATION: u32 = 1;
/// End of the log before the first transaction.
pub(crate) const BEGIN: Lsn = Lsn(0x1000);

const KEYS: u64 = 6;

/// A row of the lake that must come to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Number of the table.
    pub(crate) table: usize,
    /// Its position, as `_pos` has it.
    pub(crate) position: String,
    /// `_op`.
    pub(crate) operation: &'static str,
    /// Key.
    pub(crate) id: i64,
    /// Value; a deletion has none.
    pub(crate) a: Option<String>,
}

#[derive(Debug, Clone)]
enum Change {
    Insert {
        id: i64,
        a: String,
    },
    Update {
        old: Option<i64>,
        id: i64,
        a: String,
    },
    Delete {
        id: i64,
    },
}

#[derive(Debug)]
struct Transaction {
    commit_lsn: Lsn,
    end_lsn: Lsn,
    /// Table, version of its shape, change.
    changes: Vec<(usize, u32, Change)>,
}

/// The source database.
#[derive(Debug)]
pub(crate) struct Source {
    transactions: Vec<Transaction>,
    /// Transactions that are committed so far.
    committed: usize,
    /// What the slot would go on from.
    pub(crate) confirmed: Lsn,
    /// Every row that the lake must hold in the end.
    pub(crate) expected: Vec<Expected>,
}

impl Source {
    /// Draws the script.
    #[must_use]
    pub(crate) fn draw(choices: &mut Choices, tables: usize, transactions: usize) -> Self {
        let mut source = Self {
            transactions: Vec::new(),
            committed: 0,
            confirmed: BEGIN,
            expected: Vec::new(),
        };
        let mut draw = |bound| choices.below(Stream::Workload, bound);
        let wider: Vec<u64> = (0..tables).map(|_| draw(transactions as u64 * 2)).collect();
        let mut rows: Vec<BTreeMap<i64, ()>> = vec![BTreeMap::new(); tables];
        let mut lsn = BEGIN.0;
        for number in 0..transactions {
            let commit_lsn = Lsn(lsn + 0x10 + draw(0x40));
            let end_lsn = Lsn(commit_lsn.0 + 0x8);
            lsn = end_lsn.0;
            let mut changes = Vec::new();
            let mut ordinal = 0;
            for _ in 0..=draw(4) {
                let table = usize::try_from(draw(tables as u64)).unwrap_or(0);
                let version = if number as u64 >= wider[table] { 2 } else { 1 };
                let change = draw_change(&mut draw, &mut rows[table], source.expected.len());
                source.expect(table, commit_lsn, &mut ordinal, &change);
                changes.push((table, version, change));
            }
            source.transactions.push(Transaction {
                commit_lsn,
                end_lsn,
                changes,
            });
        }
        source
    }

    fn expect(&mut self, table: usize, commit_lsn: Lsn, ordinal: &mut u64, change: &Change) {
        let mut expect = |operation, id, a: Option<&String>| {
            *ordinal += 1;
            self.expected.push(Expected {
                table,
                position: Position::stream(INCARNATION, commit_lsn, *ordinal).to_hex(),
                operation,
                id,
                a: a.cloned(),
            });
        };
        match change {
            Change::Insert { id, a } => expect("c", *id, Some(a)),
            Change::Update { old: None, id, a } => expect("u", *id, Some(a)),
            Change::Update {
                old: Some(old),
                id,
                a,
            } => {
                expect("d", *old, None);
                expect("c", *id, Some(a));
            }
            Change::Delete { id } => expect("d", *id, None),
        }
    }

    /// Commits the next transaction; false if all are.
    pub(crate) fn commit_next(&mut self) -> bool {
        let more = self.committed < self.transactions.len();
        self.committed += usize::from(more);
        more
    }

    /// Whether everything is committed at the source and the slot needs nothing of it any more.
    #[must_use]
    pub(crate) fn is_captured(&self) -> bool {
        self.committed == self.transactions.len() && self.confirmed >= self.end()
    }

    /// End of the log.
    #[must_use]
    pub(crate) fn end(&self) -> Lsn {
        let last = self.transactions[..self.committed].last();
        last.map_or(BEGIN, |last| last.end_lsn)
    }
}

fn draw_change(
    draw: &mut impl FnMut(u64) -> u64,
    rows: &mut BTreeMap<i64, ()>,
    serial: usize,
) -> Change {
    let id = i64::try_from(draw(KEYS)).unwrap_or(0);
    let a = format!("v{serial}");
    if !rows.contains_key(&id) {
        // A row moves to a free key, or a new one comes.
        let from = rows.keys().next().copied().filter(|_| draw(4) == 0);
        rows.insert(id, ());
        return match from {
            Some(old) => {
                rows.remove(&old);
                Change::Update {
                    old: Some(old),
                    id,
                    a,
                }
            }
            None => Change::Insert { id, a },
        };
    }
    if draw(4) == 0 {
        rows.remove(&id);
        return Change::Delete { id };
    }
    Change::Update { old: None, id, a }
}

/// A stream of one agent.
#[derive(Debug)]
pub(crate) struct Replication {
    next: usize,
    told: Vec<u32>,
    frames: VecDeque<Bytes>,
}

impl Replication {
    /// Begins where it was asked for, and never before what the slot confirmed.
    #[must_use]
    pub(crate) fn begin(source: &Source, from: Lsn, tables: usize) -> Self {
        let from = from.max(source.confirmed);
        let next = source
            .transactions
            .partition_point(|known| known.commit_lsn < from);
        Self {
            next,
            told: vec![0; tables],
            frames: VecDeque::new(),
        }
    }

    /// The next frame; `None` if the log has no more.
    pub(crate) fn next(&mut self, source: &Source) -> Option<Frame> {
        if self.frames.is_empty() && self.next < source.committed {
            let transaction = &source.transactions[self.next];
            self.next += 1;
            self.print(transaction);
        }
        let payload = self.frames.pop_front()?;
        Some(Frame::Data {
            wal_start: Lsn(0),
            wal_end: source.end(),
            payload,
        })
    }

    /// Whether everything committed was sent.
    #[must_use]
    pub(crate) fn is_at_end(&self, source: &Source) -> bool {
        self.frames.is_empty() && self.next >= source.committed
    }

    fn print(&mut self, transaction: &Transaction) {
        let mut begin = Message::new(b'B');
        begin.u64(transaction.commit_lsn.0).u64(0).u32(700);
        self.frames.push_back(begin.end());
        for (table, version, change) in &transaction.changes {
            if self.told[*table] != *version {
                self.told[*table] = *version;
                self.frames.push_back(relation(*table, *version));
            }
            self.frames
                .push_back(print_change(*table, *version, change));
        }
        let mut commit = Message::new(b'C');
        commit.u8(0).u64(transaction.commit_lsn.0);
        commit.u64(transaction.end_lsn.0).u64(0);
        self.frames.push_back(commit.end());
    }
}

/// Name of a table.
#[must_use]
pub(crate) fn table_name(table: usize) -> String {
    format!("t{table}")
}

/// Number of a table.
#[must_use]
pub(crate) fn oid(table: usize) -> u32 {
    FIRST_OID + u32::try_from(table).unwrap_or(0)
}

/// A message of pgoutput, as it is written.
struct Message(Vec<u8>);

impl Message {
    fn new(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.0.extend(name.as_bytes());
        self.u8(0)
    }

    fn cell(&mut self, value: Option<&str>) -> &mut Self {
        let Some(text) = value else {
            return self.u8(b'n');
        };
        self.u8(b't').u32(u32::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.as_bytes());
        self
    }

    fn row(&mut self, part: u8, version: u32, id: i64, a: Option<&str>) -> &mut Self {
        self.u8(part).u16(if version > 1 { 3 } else { 2 });
        self.cell(Some(&id.to_string())).cell(a);
        if version > 1 {
            self.cell(a.map(|_| "7"));
        }
        self
    }

    fn end(self) -> Bytes {
        Bytes::from(self.0)
    }
}

const INT4: u32 = 23;
const TEXT: u32 = 25;
const INT8: u32 = 20;

/// `id int` (key), `a text`; from version 2 on also `b bigint`.
fn relation(table: usize, version: u32) -> Bytes {
    let columns = [(1, "id", INT4), (0, "a", TEXT), (0, "b", INT8)];
    let count: u16 = if version > 1 { 3 } else { 2 };
    let mut message = Message::new(b'R');
    message
        .u32(oid(table))
        .name("public")
        .name(&table_name(table));
    message.u8(b'd').u16(count);
    for (key, name, type_oid) in columns.into_iter().take(usize::from(count)) {
        message.u8(key).name(name).u32(type_oid).u32(u32::MAX);
    }
    message.end()
}

fn print_change(table: usize, version: u32, change: &Change) -> Bytes {
    let (tag, oid) = match change {
        Change::Insert { .. } => (b'I', oid(table)),
        Change::Update { .. } => (b'U', oid(table)),
        Change::Delete { .. } => (b'D', oid(table)),
    };
    let mut message = Message::new(tag);
    message.u32(oid);
    match change {
        Change::Insert { id, a } => message.row(b'N', version, *id, Some(a)),
        Change::Update { old, id, a } => {
            if let Some(old) = old {
                message.row(b'K', version, *old, None);
            }
            message.row(b'N', version, *id, Some(a))
        }
        Change::Delete { id } => message.row(b'K', version, *id, None),
    };
    message.end()
}
