//! `tidegate ingest coverage`: what of each relay's past is proven to be in the raw topic, and what may be missing.

use std::sync::Arc;

use ::ingest::coverage::{GapReason, Proof, coverage, gaps};
use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use event::Clock;
use event::layout::NOSTR_EVENT_TOPIC;

use crate::error::Failure;
use crate::output::FormatArgs;
use crate::place::LogArgs;

/// Shows what of each relay's past is proven to be in the raw topic, and what may be missing from it.
///
/// A line is a stretch of created_at, both ends included. paged: the relay's pages were read from its one end to the
/// other; reconciled: both sides held the same ids (NIP-77); and the relay may have got more of it since, which is asked
/// for again; heard: a channel of OpenSea's stream was listened to between these moments of receipt. dense, unpageable:
/// the relay holds events there that it does not give out; not_live: between these moments of receipt nobody listened,
/// and what is not stored on the other side is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate ingest coverage
  tidegate ingest coverage --relay wss://nos.lol --format ndjson")]
pub(crate) struct Args {
    /// Only this relay
    #[arg(long, value_name = "URL")]
    relay: Option<String>,

    /// Raw topic
    #[arg(long, value_name = "TOPIC", default_value = NOSTR_EVENT_TOPIC)]
    topic: String,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

/// A line of the answer.
struct Line {
    relay: String,
    kinds: String,
    state: &'static str,
    from: i64,
    to: i64,
    as_of: i64,
}

/// Prints the ledger.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let log = args.log.open(&Clock::system()).await?;
    let mut lines = Vec::new();
    for line in coverage(log.as_ref(), &args.topic).await? {
        lines.extend(line.bands.iter().map(|band| Line {
            relay: line.relay.clone(),
            kinds: line.kinds.clone(),
            state: proof(band.proof),
            from: band.from,
            to: band.to,
            as_of: band.proven_at,
        }));
    }
    for gap in gaps(log.as_ref(), &args.topic).await? {
        let (state, as_of) = (reason(gap.reason), gap.found_at);
        lines.push(Line { relay: gap.relay, kinds: gap.kinds, state, from: gap.from, to: gap.to, as_of });
    }
    if let Some(relay) = &args.relay {
        let relay = ::ingest::normal_relay_url(relay)?;
        lines.retain(|line| line.relay == relay);
    }
    lines.sort_by(|a, b| (&a.relay, &a.kinds, a.from, a.as_of).cmp(&(&b.relay, &b.kinds, b.from, b.as_of)));
    let batch = table(&lines)?;
    let mut rows = args.format.printer(batch.schema())?;
    rows.write(&batch)?;
    Ok(rows.finish()?)
}

fn table(lines: &[Line]) -> Result<RecordBatch, Failure> {
    let text = |of: fn(&Line) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(lines.iter().map(of))) };
    let time = |of: fn(&Line) -> i64| -> ArrayRef {
        let micros = lines.iter().map(|line| of(line).saturating_mul(1_000_000));
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
    };
    Ok(RecordBatch::try_from_iter([
        ("relay", text(|line| &line.relay)),
        ("kinds", text(|line| &line.kinds)),
        ("state", text(|line| line.state)),
        ("from", time(|line| line.from)),
        ("to", time(|line| line.to)),
        ("as_of", time(|line| line.as_of)),
    ])?)
}

const fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Paged => "paged",
        Proof::Reconciled => "reconciled",
        Proof::Heard => "heard",
    }
}

const fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Dense => "dense",
        GapReason::Unpageable => "unpageable",
        GapReason::NotLive => "not_live",
    }
}
