//! `bench stream`: reads a slot with firn's client, up to a position, and throws away what it decodes or what it writes.
//!
//! The steps of the agent one by one: what decoding costs, and what writing keys and envelopes adds. `./dev bench agent` runs it
//! beside `pg_recvlogical` and beside the agent itself; CPU time is that of the process.

use std::collections::HashMap;
use std::io::Write;

use bytes::Bytes;
use change_event::envelope::{ChangeOrigin, EnvelopeWriter, Operation};
use change_event::evolution::next_schema;
use change_event::{Cell, Lsn, Position};
use source_postgres::{
    ConnectOptions, Connection, Frame, Message, RelationMessage, ReplicationStart, decode, relation,
};

/// What to read, and how far to go with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port of the server on this machine.
    #[arg(long)]
    port: u16,
    /// Database.
    #[arg(long)]
    database: String,
    /// Slot, which is read from its beginning.
    #[arg(long)]
    slot: String,
    /// Publication.
    #[arg(long)]
    publication: String,
    /// Read until everything before this position is here, such as `0/16B3748`.
    #[arg(long)]
    end: Lsn,
    /// What to do with each row.
    #[arg(long)]
    to: Goal,
}

/// How far a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Goal {
    /// Decoded, and thrown away.
    Rows,
    /// Written as a key and an envelope, and thrown away.
    Envelopes,
}

/// Reads and prints how many rows there were and how many bytes were written for them.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> std::io::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (rows, bytes) = runtime.block_on(read(options));
    writeln!(out, "{rows} rows, {bytes} bytes of keys and envelopes")
}

async fn read(options: &Options) -> (u64, usize) {
    let connect = ConnectOptions::new("127.0.0.1", options.port, "postgres", &options.database);
    let connection = Connection::connect_replication(&connect)
        .await
        .expect("a connection");
    let start = ReplicationStart {
        slot: options.slot.clone(),
        publications: vec![options.publication.clone()],
        start_lsn: Lsn(0),
    };
    let mut stream = connection
        .start_replication(&start)
        .await
        .expect("a stream");
    let mut writing = Writing::default();
    let mut rows = 0;
    loop {
        let buffered = stream.try_next_buffered().expect("a frame");
        let frame = match buffered {
            Some(frame) => frame,
            None => stream.next().await.expect("a frame"),
        };
        let reached = match frame {
            Frame::KeepAlive { wal_end, .. } => wal_end,
            Frame::Data { payload, .. } => match take(&payload, options.to, &mut writing) {
                Taken::Row => {
                    rows += 1;
                    continue;
                }
                Taken::End(lsn) => lsn,
                Taken::Other => continue,
            },
        };
        if reached >= options.end {
            stream.stop().await;
            return (rows, writing.bytes);
        }
    }
}

enum Taken {
    Row,
    /// The end of a transaction, and where the log stands behind it.
    End(Lsn),
    Other,
}

/// Buffers and writers, as the agent has them.
#[derive(Debug, Default)]
struct Writing {
    writers: HashMap<u32, EnvelopeWriter>,
    origin: Option<ChangeOrigin>,
    key: Vec<u8>,
    value: Vec<u8>,
    bytes: usize,
}

fn take(payload: &Bytes, goal: Goal, writing: &mut Writing) -> Taken {
    match decode::decode(payload).expect("a message") {
        Message::Insert { relation_oid, new } => {
            if goal == Goal::Envelopes {
                writing.insert(relation_oid, new.cells());
            } else {
                // Every cell is looked at, as any consumer would.
                std::hint::black_box(new.cells().filter(|cell| *cell == Cell::Null).count());
            }
            Taken::Row
        }
        Message::Begin {
            final_lsn,
            commit_us,
            xid,
        } => {
            writing.origin = Some(ChangeOrigin {
                commit_us,
                commit_lsn: final_lsn,
                transaction_id: xid,
                ordinal: 0,
                handled_ms: commit_us / 1000,
            });
            Taken::Other
        }
        Message::Commit { end_lsn, .. } => Taken::End(end_lsn),
        Message::Relation(shape) => {
            writing.relation(&shape);
            Taken::Other
        }
        other => unreachable!("the slot holds inserts only, not {other:?}"),
    }
}

impl Writing {
    fn relation(&mut self, shape: &RelationMessage) {
        let observed = relation::observe_relation(shape, None, None, false);
        let schema = next_schema(None, &observed, Position::stream(1, Lsn(1), 1)).expect("new");
        let writer = EnvelopeWriter::new(&schema, "bench", "bench");
        self.writers.insert(shape.oid, writer);
    }

    fn insert<'a>(&mut self, oid: u32, cells: impl Iterator<Item = Cell<'a>> + Clone) {
        let writer = self.writers.get(&oid).expect("a relation came before");
        let origin = self.origin.as_mut().expect("a transaction began");
        origin.ordinal += 1;
        let keyed = writer.write_key(&mut self.key, cells.clone());
        assert!(keyed.expect("a key"));
        writer
            .write_envelope(
                &mut self.value,
                Operation::Create,
                origin,
                None::<(std::iter::Empty<Cell<'a>>, bool)>,
                Some(cells),
            )
            .expect("fits");
        self.bytes += self.key.len() + self.value.len();
    }
}
