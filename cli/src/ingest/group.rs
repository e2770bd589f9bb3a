//! Options of a process that shares its relays with others.

use std::time::Duration;

use ::ingest::GroupSettings;
use event::Span;

use crate::error::Failure;
use crate::place::LogArgs;

/// Longest name of a group: with the raw topic before it, it is a name in Kafka.
const NAME_BYTES_MAX: usize = 100;

/// Which group, if any.
#[derive(Debug, clap::Args)]
pub(super) struct GroupArgs {
    /// Share the relays with all processes that name this group, the same raw topic and the same relays: each relay is
    /// followed by one of them, each event is written once, and what one leaves undone others take over; on Kafka, and
    /// not with --once
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "once")]
    group: Option<String>,

    /// Silence after which others of the group take over from a process; brokers allow 6s to 30m
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = Span::parse, requires = "group")]
    group_session_timeout: Span,
}

impl GroupArgs {
    /// The same as settings.
    pub(super) fn settings(&self, log: &LogArgs) -> Result<Option<GroupSettings>, Failure> {
        let Some(name) = &self.group else { return Ok(None) };
        if log.brokers().is_none() {
            let message = format!("group `{name}` needs Kafka: the embedded log belongs to one process");
            return Err(Failure::usage(message)
                .hint("name a broker with --kafka-brokers, or leave --group out: one process follows all relays"));
        }
        let micros = u64::try_from(self.group_session_timeout.micros()).unwrap_or_default();
        Ok(Some(GroupSettings { session_timeout: Duration::from_micros(micros), ..GroupSettings::new(name) }))
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    match fits {
        true => Ok(text.to_owned()),
        false => Err(format!("use 1 to {NAME_BYTES_MAX} letters, digits, dots, underscores and dashes")),
    }
}
