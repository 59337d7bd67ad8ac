//! A source, a broker, a bucket in a folder, and agents as processes.

use std::cell::Cell;
use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use test_kit::kafka::KafkaBroker;
use test_kit::postgres::{PostgresOptions, PostgresServer};
use tokio::time::{Instant, timeout};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const STEP: Duration = Duration::from_millis(50);

pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE * 10, test).await.expect("the test ends") });
}

/// The parts of one test.
pub(crate) struct Bench {
    pub(crate) postgres: PostgresServer,
    pub(crate) kafka: KafkaBroker,
    /// What the configuration asks for.
    pub(crate) partitions: Cell<u32>,
    folder: TempDir,
}

impl Bench {
    /// `None` without Kafka's jars; the kit has said so then.
    pub(crate) async fn start(programs: &Path) -> Option<Self> {
        Self::start_with(programs, &PostgresOptions::default()).await
    }

    /// Likewise, with settings of the server.
    pub(crate) async fn start_with(programs: &Path, options: &PostgresOptions) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = folder.path().join("kafka");
        std::fs::create_dir(&broker).expect("a folder");
        let kafka = KafkaBroker::start(&broker).await.expect("a broker")?;
        let postgres = PostgresServer::start(programs, options).expect("a server");
        Some(Self {
            postgres,
            kafka,
            partitions: Cell::new(2),
            folder,
        })
    }

    /// Writes a configuration for the one source of the bench; `extra` is added to it.
    fn config(&self, extra: &str) -> PathBuf {
        let mut text = String::new();
        write!(
            text,
            "[source]\nname = \"s\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"postgres\"\n\
             [kafka]\nbootstrap_servers = \"{}\"\n[lake]\nbucket = \"lake\"\ndatabase = \"s\"\n\
             [object_store]\nendpoint = \"file://{}\"\n[topics]\nreplication_factor = 1\npartitions = {}\n\
             [http]\nlisten = \"127.0.0.1:0\"\n[limits]\ntransaction_max_ms = 50\nrecord_max_bytes = 2000\n{extra}",
            self.postgres.port(),
            self.kafka.bootstrap_servers(),
            self.folder.path().display(),
            self.partitions.get(),
        )
        .expect("written");
        let path = self.folder.path().join("firn.toml");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// The folder that is the bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// Starts an agent, with failpoints armed.
    pub(crate) fn agent(&self, failpoints: &str) -> Agent {
        let log = self.folder.path().join("agent.log");
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_capture-agent"))
            .args(["run", "--config"])
            .arg(self.config(""))
            .env("FIRN_FAILPOINTS", failpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("an agent");
        Agent { process, log }
    }

    /// Waits until the slot is acknowledged past everything that is written now.
    pub(crate) async fn caught_up(&self) {
        let end = self
            .postgres
            .sql("SELECT pg_current_wal_lsn()")
            .expect("a position");
        let sql = format!(
            "SELECT coalesce(bool_and(confirmed_flush_lsn >= '{}'), false) FROM pg_replication_slots",
            end.trim()
        );
        self.until("the slot is acknowledged", || {
            self.postgres
                .sql(&sql)
                .is_ok_and(|answer| answer.trim() == "t")
        })
        .await;
    }

    /// Looks again and again until it is so.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() >= deadline {
                let log = std::fs::read_to_string(self.folder.path().join("agent.log"))
                    .unwrap_or_default();
                panic!("not within {PATIENCE:?}: {what}\n{log}");
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

/// A running agent; dropping it kills it.
pub(crate) struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a status") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the agent did not end\n{}",
                self.log()
            );
            tokio::time::sleep(STEP).await;
        }
    }

    /// Asks it to stop in order, and waits.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill");
        assert!(sent.success());
        self.ended().await
    }

    /// What all agents of the bench have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
