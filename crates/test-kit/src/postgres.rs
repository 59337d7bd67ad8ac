//! A PostgreSQL server of its own for a test, and a test runner for tests that need one.
//!
//! Flow: `./dev test` sets [`PROGRAMS_VARIABLE`] -> **here** -> a server on a free port of the loopback, stopped and removed on drop.
//!
//! # Invariants
//! - Nothing outlives the value: not the server, not its folder.
//! - As root, the server runs as [`SERVER_USER`], for it refuses to run as root; its programs must be readable by that user.
//! - Without the variable, tests are absent from the run and a line says so; they never pass unrun.

use std::io::{Error, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Folder of `initdb`, `pg_ctl`, `postgres` and, for [`PostgresServer::sql`], `psql`.
pub const PROGRAMS_VARIABLE: &str = "FIRN_PG_BIN";

/// Numeric user and group (`nobody`) that the server runs as if the test runs as root.
pub const SERVER_USER: u32 = 65_534;

/// Name of the superuser, who needs no password.
pub const SUPERUSER: &str = "postgres";

/// A free port may be taken by another test between asking for it and using it.
const START_TRIES: usize = 5;

/// Folders of servers in one process have different numbers.
static SERVER_COUNT: AtomicU32 = AtomicU32::new(0);

/// How a server is to be.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    settings: Vec<(String, String)>,
    hba: Vec<String>,
}

impl PostgresOptions {
    /// Sets a setting of `postgresql.conf`; the last one of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a line before those of `pg_hba.conf` that let everybody in.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }
}

/// A running server; dropping it stops it and removes its data.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    as_root: bool,
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // A server that does not stop, or a folder that stays, must not hide why a test failed.
        if let Err(error) = self.control(&["-m", "immediate", "stop"]) {
            eprintln!("PostgreSQL on port {} was not stopped: {error}", self.port);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} was not removed: {error}", self.folder.display());
        }
    }
}

/// The folder of programs, if the environment names one.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    std::env::var_os(PROGRAMS_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

impl PostgresServer {
    /// Makes a server with `wal_level=logical` and starts it.
    ///
    /// # Errors
    /// If a program fails or is not there; the message holds the server's log.
    pub fn start(programs: &Path, options: &PostgresOptions) -> Result<Self> {
        let mut server = Self::new(programs)?;
        let data = server.data();
        let mut initdb = server.program("initdb");
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", SUPERUSER, "--auth=trust", "-E", "UTF8"]);
        text_of(initdb.args(["--locale=C", "--no-sync"]))?;
        let hba = std::fs::read_to_string(data.join("pg_hba.conf"))?;
        std::fs::write(
            data.join("pg_hba.conf"),
            format!("{}\n{hba}", options.hba.join("\n")),
        )?;
        server.start_on_a_free_port(options)?;
        Ok(server)
    }

    /// Makes a standby of a running server, by a base backup, and starts it; it follows by `primary_conninfo`.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub fn standby(programs: &Path, options: &PostgresOptions, primary: &Self) -> Result<Self> {
        let mut server = Self::new(programs)?;
        let data = server.data();
        let mut backup = server.program("pg_basebackup");
        backup
            .args(["-h", "127.0.0.1", "-U", SUPERUSER, "-X", "stream"])
            .args(["-c", "fast", "--no-sync", "-p", &primary.port.to_string()])
            .arg("-D")
            .arg(&data);
        text_of(&mut backup)?;
        std::fs::write(data.join("standby.signal"), "")?;
        let port = primary.port;
        let primary = format!("host=127.0.0.1 port={port} user={SUPERUSER} dbname=postgres");
        server.start_on_a_free_port(&options.clone().setting("primary_conninfo", &primary))?;
        Ok(server)
    }

    fn new(programs: &Path) -> Result<Self> {
        let number = SERVER_COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("firn-postgres-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let as_root = text_of(Command::new("id").arg("-u"))?.trim() == "0";
        if as_root {
            std::os::unix::fs::chown(&folder, Some(SERVER_USER), Some(SERVER_USER))?;
        }
        Ok(Self {
            programs: programs.to_owned(),
            folder,
            port: 0,
            as_root,
        })
    }

    /// The settings so far, and those of the options behind them.
    fn start_on_a_free_port(&mut self, options: &PostgresOptions) -> Result<()> {
        let data = self.data();
        let default = std::fs::read_to_string(data.join("postgresql.conf"))?;
        for _ in 0..START_TRIES {
            self.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            let settings = self.settings(options);
            std::fs::write(
                data.join("postgresql.conf"),
                format!("{default}\n{settings}"),
            )?;
            if self.control(&["-t", "60", "start"]).is_ok() {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(Error::other(format!("PostgreSQL did not start:\n{log}")))
    }

    /// Port on `127.0.0.1`.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Folder of the Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// What the server wrote to its log so far.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.folder.join("log"))
    }

    /// Stops the server; [`PostgresServer::restart`] brings it back.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&self) -> Result<()> {
        self.control(&["-m", "fast", "-t", "60", "stop"])
    }

    /// Makes a standby a primary, on the next timeline.
    ///
    /// # Errors
    /// If it is none.
    pub fn promote(&self) -> Result<()> {
        self.control(&["-t", "60", "promote"])
    }

    /// Stops and starts the server, on the same port.
    ///
    /// # Errors
    /// If it does not stop or start.
    pub fn restart(&self) -> Result<()> {
        self.control(&["-m", "fast", "-t", "60", "restart"])
    }

    /// Runs SQL as superuser in database `postgres`; gives its rows, columns parted by `|`.
    ///
    /// # Errors
    /// If it fails; the message holds the server's.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let mut psql = self.program("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
        ]);
        psql.args([
            "-p",
            &self.port.to_string(),
            "-U",
            SUPERUSER,
            "-d",
            "postgres",
            "-c",
            sql,
        ]);
        Ok(text_of(&mut psql)?.trim_end().to_owned())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn settings(&self, options: &PostgresOptions) -> String {
        let folder = self.folder.display().to_string();
        let port = self.port.to_string();
        let mut lines: Vec<String> = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            ("unix_socket_directories", folder.as_str()),
            ("wal_level", "logical"),
            ("fsync", "off"),
            ("max_replication_slots", "20"),
            ("max_wal_senders", "20"),
            ("autovacuum", "off"),
        ]
        .iter()
        .map(|(name, value)| format!("{name} = '{value}'"))
        .collect();
        lines.extend(
            options
                .settings
                .iter()
                .map(|(name, value)| format!("{name} = '{value}'")),
        );
        lines.join("\n") + "\n"
    }

    /// A program of the server, as a user that is not root.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if self.as_root {
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={SERVER_USER}"),
                format!("--regid={SERVER_USER}"),
            ]);
            command.arg("--clear-groups").arg(path);
            command
        } else {
            Command::new(path)
        };
        command
            .current_dir(&self.folder)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        let mut pg_ctl = self.program("pg_ctl");
        pg_ctl
            .arg("-D")
            .arg(self.data())
            .arg("-l")
            .arg(self.folder.join("log"))
            .arg("-w");
        // The server would hold a pipe open.
        pg_ctl
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = pg_ctl.status()?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::other(format!("pg_ctl: {status}")))
        }
    }
}

/// Runs a command to its end; gives what it printed.
fn text_of(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().display();
    Err(Error::other(format!(
        "{program}: {}: {said}",
        output.status
    )))
}

/// A test that needs a server.
#[derive(Debug, Clone, Copy)]
pub struct PostgresTest {
    /// Its name.
    pub name: &'static str,
    /// The test, given the folder of programs; it fails by a panic.
    pub run: fn(&Path),
}

/// The `main` of a test binary with `harness = false`: lists and runs tests as the standard harness does, as far as cargo and nextest
/// ask. Without [`PROGRAMS_VARIABLE`] there are none.
#[must_use]
pub fn run_tests(tests: &[PostgresTest]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let Some(programs) = programs() else {
        eprintln!(
            "{} tests are absent: {PROGRAMS_VARIABLE} names no PostgreSQL; `./dev test` sets it",
            tests.len()
        );
        return ExitCode::SUCCESS;
    };
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|text| !text.starts_with('-'))
        .collect();
    let chosen = tests.iter().filter(|test| {
        let fits = |filter: &&String| match has("--exact") {
            true => filter.as_str() == test.name,
            false => test.name.contains(filter.as_str()),
        };
        // `--format terse` leaves a word behind that is no filter.
        filters.is_empty() || has("--list") || filters.iter().any(fits)
    });
    if has("--list") {
        // None is ignored.
        for test in chosen.filter(|_| !has("--ignored")) {
            write_line(&format!("{}: test", test.name));
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for test in chosen {
        let passed = std::panic::catch_unwind(|| (test.run)(&programs)).is_ok();
        write_line(&format!(
            "test {} ... {}",
            test.name,
            if passed { "ok" } else { "FAILED" }
        ));
        if !passed {
            failed.push(test.name);
        }
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a test harness speaks on standard output"
)]
fn write_line(line: &str) {
    println!("{line}");
}
