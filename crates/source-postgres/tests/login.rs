//! Authentication.

use std::path::Path;

use change_event::disposition::Disposition;
use source_postgres::{ConnectOptions, Connection, Password, SourceError, SslMode};
use test_kit::postgres::PostgresOptions;

use crate::support::{options, sql, start, start_with};

pub(crate) async fn passwords_are_checked_by_every_method(programs: &Path) {
    let lines = PostgresOptions::default()
        .hba("host all scram 127.0.0.1/32 scram-sha-256")
        .hba("host all digest 127.0.0.1/32 md5")
        .hba("host all plain 127.0.0.1/32 password")
        .hba("host all refused 127.0.0.1/32 reject");
    let server = start_with(programs, &lines);
    let mut admin = sql(&server).await;
    for (role, encryption) in [
        ("scram", "scram-sha-256"),
        ("digest", "md5"),
        ("plain", "scram-sha-256"),
        ("refused", "md5"),
    ] {
        admin
            .query(&format!(
                "SET password_encryption = '{encryption}';
                 CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pass=wörd,'"
            ))
            .await
            .unwrap();
    }
    let login = |role: &str, password: Option<&str>| ConnectOptions {
        password: password.map(Password::new),
        user: role.to_owned(),
        ..options(&server)
    };
    for role in ["scram", "digest", "plain"] {
        let mut replication = Connection::connect_replication(&login(role, Some("pass=wörd,")))
            .await
            .unwrap();
        let identity = replication.identify_system().await.unwrap();
        assert_eq!(
            (identity.database.as_str(), identity.timeline),
            ("postgres", 1)
        );

        let wrong = Connection::connect(&login(role, Some("pass")))
            .await
            .unwrap_err();
        assert!(
            matches!(wrong, SourceError::AuthenticationFailed { .. }),
            "{role}: {wrong:?}"
        );
        assert_eq!(wrong.disposition(), Disposition::Halt);

        let none = Connection::connect(&login(role, None)).await.unwrap_err();
        assert!(
            matches!(none, SourceError::PasswordMissing { .. }),
            "{role}: {none:?}"
        );
    }
    let refused = Connection::connect(&login("refused", None))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, SourceError::AuthenticationFailed { .. }),
        "{refused:?}"
    );
    let unknown = Connection::connect(&login("nobody", Some("x")))
        .await
        .unwrap_err();
    assert!(
        matches!(unknown, SourceError::AuthenticationFailed { .. }),
        "{unknown:?}"
    );
    assert!(!format!("{refused:?}{unknown:?}").contains("pass="));
}

pub(crate) async fn encryption_is_refused_and_an_unreachable_server_is_retried(programs: &Path) {
    let server = start(programs);
    let require = ConnectOptions {
        ssl_mode: SslMode::Require,
        ..options(&server)
    };
    let refused = Connection::connect(&require).await.unwrap_err();
    assert!(
        matches!(refused, SourceError::SslModeUnsupported { .. }),
        "{refused:?}"
    );

    let folder = server.socket_folder().display().to_string();
    let socket = ConnectOptions {
        host: folder,
        ..options(&server)
    };
    let mut over_socket = Connection::connect(&socket).await.unwrap();
    assert_eq!(
        over_socket.query("SELECT 1").await.unwrap()[0].get(0),
        Some("1")
    );

    let nowhere = ConnectOptions {
        port: 1,
        ..options(&server)
    };
    let error = Connection::connect(&nowhere).await.unwrap_err();
    assert!(matches!(error, SourceError::Connect { .. }), "{error:?}");
    assert_eq!(error.disposition(), Disposition::Retry);
    let elsewhere = ConnectOptions {
        database: "nowhere".to_owned(),
        ..options(&server)
    };
    let error = Connection::connect(&elsewhere).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt);
}
