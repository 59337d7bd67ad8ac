//! Start-up and authentication.
//!
//! # Invariants
//! - A password leaves only into the exchange that the server asked for.
//!
//! # Source
//! PostgreSQL manual, "Message Flow: Start-up" and "SASL Authentication".

use bytes::{Buf as _, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use crate::config::{ConnectOptions, Password, SESSION_SETTINGS};
use crate::error::{Answering, SourceError};
use crate::wire::{Wire, server_message};

/// Sends the start-up packet, authenticates, and waits until the server is ready.
pub(crate) async fn start_up(
    wire: &mut Wire,
    options: &ConnectOptions,
    replication: bool,
) -> Result<(), SourceError> {
    let settings: Vec<String> = SESSION_SETTINGS
        .iter()
        .map(|(name, value)| format!("-c {name}={value}"))
        .collect();
    let settings = settings.join(" ");
    let mut parameters = vec![
        ("user", options.user.as_str()),
        ("database", options.database.as_str()),
        ("application_name", options.application_name.as_str()),
        ("client_encoding", "UTF8"),
        ("options", settings.as_str()),
    ];
    if replication {
        parameters.push(("replication", "database"));
    }
    frontend::startup_message(parameters, &mut wire.outgoing).map_err(|_source| {
        SourceError::Protocol {
            what: "a zero byte in a start-up option",
        }
    })?;
    wire.flush().await?;

    let answering = Answering::StartUp {
        user: &options.user,
    };
    loop {
        let frame = wire.frame().await?;
        match frame.tag {
            b'R' => authenticate(wire, options, frame.body).await?,
            b'E' => return Err(answering.error(server_message(&frame.body, answering))),
            b'Z' => return Ok(()),
            // Parameter status, key for cancelling, notice, negotiated minor version: nothing to do.
            b'S' | b'K' | b'N' | b'v' => {}
            _ => {
                return Err(SourceError::Protocol {
                    what: "unexpected frame at start-up",
                });
            }
        }
    }
}

async fn authenticate(
    wire: &mut Wire,
    options: &ConnectOptions,
    mut request: Bytes,
) -> Result<(), SourceError> {
    match code(&mut request)? {
        0 => Ok(()),
        3 => send_password(wire, password(options)?.expose().as_bytes()).await,
        5 => {
            let salt = request.first_chunk::<4>().ok_or(SourceError::Protocol {
                what: "md5 salt is cut short",
            })?;
            let password = password(options)?.expose().as_bytes();
            let answer = md5_hash(options.user.as_bytes(), password, *salt);
            send_password(wire, answer.as_bytes()).await
        }
        10 => scram(wire, options, &request).await,
        7 | 8 => unsupported("GSSAPI"),
        9 => unsupported("SSPI"),
        other => unsupported(&format!("number {other}")),
    }
}

fn unsupported(method: &str) -> Result<(), SourceError> {
    Err(SourceError::AuthenticationUnsupported {
        method: method.to_owned(),
    })
}

fn password(options: &ConnectOptions) -> Result<&Password, SourceError> {
    options
        .password
        .as_ref()
        .ok_or_else(|| SourceError::PasswordMissing {
            user: options.user.clone(),
        })
}

fn code(request: &mut Bytes) -> Result<i32, SourceError> {
    request
        .try_get_i32()
        .map_err(|_source| SourceError::Protocol {
            what: "authentication request is cut short",
        })
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), SourceError> {
    frontend::password_message(password, &mut wire.outgoing).map_err(|_source| {
        SourceError::Protocol {
            what: "a zero byte in the password",
        }
    })?;
    wire.flush().await
}

async fn scram(
    wire: &mut Wire,
    options: &ConnectOptions,
    mechanisms: &[u8],
) -> Result<(), SourceError> {
    if !mechanisms
        .split(|byte| *byte == 0)
        .any(|name| name == SCRAM_SHA_256.as_bytes())
    {
        let names = String::from_utf8_lossy(mechanisms).replace('\0', " ");
        return unsupported(names.trim());
    }
    let not_authentic = |source| SourceError::ServerNotAuthentic { source };
    let password = password(options)?.expose().as_bytes();
    let mut exchange = ScramSha256::new(password, ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), &mut wire.outgoing)
        .map_err(not_authentic)?;
    wire.flush().await?;

    let challenge = sasl_frame(wire, options, 11).await?;
    exchange.update(&challenge).map_err(not_authentic)?;
    frontend::sasl_response(exchange.message(), &mut wire.outgoing).map_err(not_authentic)?;
    wire.flush().await?;

    let proof = sasl_frame(wire, options, 12).await?;
    exchange.finish(&proof).map_err(not_authentic)
}

async fn sasl_frame(
    wire: &mut Wire,
    options: &ConnectOptions,
    expected: i32,
) -> Result<Bytes, SourceError> {
    let mut frame = wire.frame().await?;
    match frame.tag {
        b'R' if code(&mut frame.body)? == expected => Ok(frame.body),
        b'E' => {
            let answering = Answering::StartUp {
                user: &options.user,
            };
            Err(answering.error(server_message(&frame.body, answering)))
        }
        _ => Err(SourceError::Protocol {
            what: "unexpected frame in the SCRAM exchange",
        }),
    }
}
