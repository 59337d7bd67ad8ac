//! A real Apache Kafka broker (KRaft, one node) for a test.
//!
//! # Invariants
//! - It listens on the loopback interface only, on ports that were free, and dies with the value that started it.
//! - [`KafkaBroker::kill`] is `kill -9`; [`KafkaBroker::restart`] opens the same log folder on the same ports.
//! - A killed broker may come back after two seconds: the controller waits that long for the dead one.
//! - Without the jars there is no broker and no failure: [`KafkaBroker::start`] says on standard error why, and gives `None`.
//!
//! # Source
//! Apache Kafka 4.3.1: `kafka.tools.StorageTool format`, then `kafka.Kafka`, both from the jars of `kafka_2.13` and
//! `kafka-tools`; a broker is ready when its port is open.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

/// Folder of Kafka's jars.
pub const KAFKA_LIB_VARIABLE: &str = "FIRN_KAFKA_LIB";
/// The Java program; `java` if it is not set.
pub const JAVA_VARIABLE: &str = "FIRN_JAVA";

/// A start takes four seconds on a quiet machine.
const READY_TRIES: u32 = 600;
const READY_STEP: Duration = Duration::from_millis(200);

/// A running (or killed) broker.
#[derive(Debug)]
pub struct KafkaBroker {
    folder: PathBuf,
    jars: PathBuf,
    java: PathBuf,
    port: u16,
    process: Option<Child>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment where the broker is"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A port that is free now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

impl KafkaBroker {
    /// Formats and starts a broker whose files lie below `folder`; `None` without jars.
    ///
    /// # Errors
    /// What the system said, or that the broker was not ready in two minutes; its output lies in `folder`.
    pub async fn start(folder: &Path) -> io::Result<Option<Self>> {
        let Some(jars) = variable(KAFKA_LIB_VARIABLE) else {
            eprintln!("skipped: {KAFKA_LIB_VARIABLE} does not name the folder of Kafka's jars");
            return Ok(None);
        };
        let java = variable(JAVA_VARIABLE).unwrap_or_else(|| "java".to_owned());
        let (port, controller_port) = (free_port()?, free_port()?);
        let mut broker = Self {
            folder: folder.to_owned(),
            jars: PathBuf::from(jars).join("*"),
            java: PathBuf::from(java),
            port,
            process: None,
        };
        fs::write(broker.properties(), broker.settings(controller_port))?;
        let cluster_id = ["-t", "AAAAAAAAQACAAAAAAAAAAA"];
        let output = File::create(folder.join("format.log"))?;
        let formatted = broker
            .java(&output)?
            .args(["kafka.tools.StorageTool", "format"])
            .args(cluster_id)
            .arg("-c")
            .arg(broker.properties())
            .status()?;
        if !formatted.success() {
            return Err(io::Error::other(format!(
                "storage not formatted, see {}",
                folder.display()
            )));
        }
        broker.restart().await?;
        Ok(Some(broker))
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the broker as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// What the system said.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Starts the broker (anew) on its log folder and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("broker.log"))?;
        let process = self
            .java(&output)?
            .arg("kafka.Kafka")
            .arg(self.properties())
            .spawn()?;
        self.process = Some(process);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        for _ in 0..READY_TRIES {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(());
            }
            if self
                .process
                .as_mut()
                .is_some_and(|process| matches!(process.try_wait(), Ok(Some(_))))
            {
                break;
            }
            tokio::time::sleep(READY_STEP).await;
        }
        self.kill()?;
        Err(io::Error::other(format!(
            "broker not ready, see {}",
            self.folder.display()
        )))
    }

    fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn java(&self, output: &File) -> io::Result<Command> {
        let mut command = Command::new(&self.java);
        command
            .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(&self.jars)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        Ok(command)
    }

    fn settings(&self, controller_port: u16) -> String {
        let (port, logs) = (self.port, self.folder.join("data"));
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.heartbeat.interval.ms=500\n\
             broker.session.timeout.ms=2000\n\
             message.max.bytes=8388608\n\
             auto.create.topics.enable=false\n",
            logs.display()
        )
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        if self.kill().is_err() {
            eprintln!("a broker may still run on port {}", self.port);
        }
    }
}
