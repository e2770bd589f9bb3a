//! What the database says, sorted by what the operator should do.

use std::error::Error as StdError;

use tokio_postgres::error::{DbError, SqlState};

use super::place::Database;
use crate::error::{Error, ErrorKind};

/// An error of the client, as one of ours.
pub(super) fn of(database: &Database, error: tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        let kind = if broken(&error) { ErrorKind::Unavailable } else { ErrorKind::Config };
        let what = format!("could not reach the database {database}");
        return Error::new(kind, what).with_source(chain(&error));
    };
    let error = Error::new(kind_of(said.code()), format!("the database {database} refuses")).with_source(words(said));
    match hint(said.code()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Whether the connection is at fault, not what was asked.
fn broken(error: &tokio_postgres::Error) -> bool {
    let mut cause = Some(error as &(dyn StdError + 'static));
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    let text = error.to_string();
    error.is_closed() || ["connecting", "timeout", "communicating"].iter().any(|word| text.contains(word))
}

fn kind_of(code: &SqlState) -> ErrorKind {
    match (code.code(), &code.code()[..2]) {
        // Wrong password, no such role, no such database, no right, a table that somebody took away.
        (_, "28" | "3D" | "42" | "3F") => ErrorKind::Config,
        // The cluster's standby has taken over, or this one is a standby.
        ("25006", _) => ErrorKind::Unavailable,
        // Connections, deadlocks and serialisation, resources, an operator at work, the system.
        (_, "08" | "40" | "53" | "55" | "57" | "58") => ErrorKind::Unavailable,
        // Values and constraints.
        (_, "22" | "23" | "54" | "P0") => ErrorKind::Data,
        _ => ErrorKind::Internal,
    }
}

fn hint(code: &SqlState) -> Option<&'static str> {
    match code.code() {
        "28P01" => Some("the password comes from the URL, PGPASSWORD, or a pgpass file"),
        "42501" => {
            Some("the user needs INSERT, UPDATE and SELECT on the tables and on tidegate_sink, or CREATE to make them")
        }
        "42P01" | "42703" => Some("the table was changed meanwhile; start again"),
        _ => None,
    }
}

/// What the server said, with the place in what was copied.
fn words(said: &DbError) -> String {
    let mut text = said.message().to_owned();
    for more in [said.detail(), said.where_()].into_iter().flatten() {
        text.push_str(&format!(" ({})", more.lines().next().unwrap_or(more)));
    }
    text
}

/// An error and what is beneath it, on one line.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}
