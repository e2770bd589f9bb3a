//! librdkafka clients as we set them up, and its errors in our words.

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::task::JoinError;

use super::KafkaSettings;
use crate::{Error, ErrorKind, Result};

/// Sends what librdkafka says to `tracing`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KafkaContext;

impl ClientContext for KafkaContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is what readers ask to be told, and no trouble.
        if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
            return;
        }
        tracing::warn!(%error, reason, "Kafka client");
    }
}

impl ConsumerContext for KafkaContext {}

/// A line of librdkafka's own log: lost connections are worth a warning, for they are tried again.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
            tracing::debug!(facility, message, "librdkafka");
        }
        _ => tracing::warn!(facility, message, "librdkafka"),
    }
}

/// What all clients share.
pub(super) fn base(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.set("socket.keepalive.enable", "true");
    // The first attempts follow each other quickly, so that a broker that starts is not waited for needlessly.
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "2000");
    for (key, value) in &settings.options {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &settings.brokers).set("client.id", &settings.client_id);
    config
}

/// A consumer that never joins its group: partitions are assigned by hand.
pub(super) fn consumer(settings: &KafkaSettings, group: &str) -> Result<BaseConsumer<KafkaContext>> {
    let mut config = base(settings);
    let queue = settings.queue_kib.to_string();
    let defaults = [
        // One queue for all partitions, at most this much in it; below the count, fetching goes on without a pause.
        ("queued.max.messages.kbytes", queue.as_str()),
        ("queued.min.messages", "200000"),
        ("fetch.message.max.bytes", "4194304"),
        ("fetch.queue.backoff.ms", "10"),
        // The end of a partition is learnt from an empty answer: do not wait half a second for it.
        ("fetch.wait.max.ms", "100"),
    ];
    set_unless_given(&mut config, &defaults);
    // Not for options to change: offsets are ours, readers see committed records only, and an offset that is gone is
    // an error.
    config.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("isolation.level", "read_committed").set("auto.offset.reset", "error");
    config.set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
    config.create_with_context(KafkaContext).map_err(|error| setup_error(settings, error))
}

/// Settings of a producer; `compression.type` and the rest may be overridden, what exactly-once rests on may not.
pub(super) fn producer(settings: &KafkaSettings, transactional_id: Option<&str>) -> ClientConfig {
    let mut config = base(settings);
    let defaults = [
        ("compression.type", settings.compression.as_str()),
        // Long enough to fill batches, short beside a commit.
        ("linger.ms", "5"),
        ("queue.buffering.max.messages", "500000"),
        ("queue.buffering.max.kbytes", "131072"),
        // Above our own limit by what a batch puts around a record.
        ("message.max.bytes", "8519680"),
    ];
    set_unless_given(&mut config, &defaults);
    config.set("acks", "all").set("enable.idempotence", "true");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    config
}

fn set_unless_given(config: &mut ClientConfig, defaults: &[(&str, &str)]) {
    for (key, value) in defaults {
        if config.get(key).is_none() {
            config.set(*key, *value);
        }
    }
}

/// Error for a client that could not be set up.
pub(super) fn setup_error(settings: &KafkaSettings, error: KafkaError) -> Error {
    let message = match &error {
        KafkaError::ClientConfig(_, why, key, value) => {
            format!("Kafka option `{key}` cannot be `{value}`: {}", why.trim_end_matches('.'))
        }
        _ => format!("could not set up a client for Kafka at `{}`", settings.brokers),
    };
    Error::new(ErrorKind::Config, message).with_source(error)
}

/// Our error for librdkafka's.
pub(super) fn error_of(message: &str, error: KafkaError) -> Error {
    Error::new(kind_of(&error), message).with_source(error)
}

/// What to do about an error of librdkafka.
pub(super) fn kind_of(error: &KafkaError) -> ErrorKind {
    match error {
        KafkaError::ClientConfig(..)
        | KafkaError::ClientCreation(_)
        | KafkaError::AdminOpCreation(_)
        | KafkaError::Nul(_) => ErrorKind::Config,
        KafkaError::Transaction(error) => kind_of_code(error.code()),
        other => other.rdkafka_error_code().map_or(ErrorKind::Unavailable, kind_of_code),
    }
}

/// What to do about an error code of librdkafka or a broker.
pub(super) fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopicId => {
            ErrorKind::NotFound
        }
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::OffsetOutOfRange
        | Code::AutoOffsetReset
        | Code::BadMessage => ErrorKind::Data,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => ErrorKind::Fenced,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::UnsupportedSASLMechanism
        | Code::SSL
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor
        | Code::InvalidTransactionTimeout
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::PolicyViolation => ErrorKind::Config,
        Code::State | Code::InvalidArgument => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether the cluster has merely not got that far: a leader being elected, a topic spreading. Only for questions about
/// topics and partitions that the cluster's metadata has named: one that it does not name is unknown for good.
pub(super) fn not_yet(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::OffsetNotAvailable
                | Code::ReplicaNotAvailable
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NotCoordinator
                | Code::WaitingForCoordinator
                | Code::UnstableOffsetCommit
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                // Of librdkafka, where none of the partitions asked for has a leader.
                | Code::UnknownPartition
                // Of a broker that has not heard of it.
                | Code::UnknownTopicOrPartition
        )
    )
}

/// Result of a blocking task.
pub(super) fn joined<T>(task: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    task.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "a task of the Kafka log did not end").with_source(error))
    })
}
