//! Events from a file or standard input, one a line or one an element of JSON arrays, into the same topics by the same
//! rules, in the order of the file.
//!
//! Unlike a relay's frame, every line gets a verdict of its own: it is verified before its id is looked up, and a
//! refused line is one record even where its bytes came before in the same run, so that the topics account for every
//! line. What the rejected topic held before the run is not written again: a file may be read twice.

mod elements;
mod lines;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use event::{Clock, Reason, Rejection};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Components;
use crate::dedup::Dedup;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Counters, add};
use crate::parcel::{Arrival, Held, Outgoing, Phase, Source};
use crate::pipeline::Pipeline;
use crate::rejected::{self, Refused};
use crate::settings::FileSettings;
use crate::verifier::{Rules, Verdict};
use crate::whole::Whole;

use lines::{Line, Texts};

/// Lines that are verified together on one thread.
const BATCH_LINES: usize = 256;
/// Bytes of lines that are verified together; a batch ends with the line that passes it.
const BATCH_BYTES: usize = 1 << 20;
/// Batches read ahead of the verifiers.
const BATCHES_AHEAD: usize = 4;

type Batch = Vec<(Line, i64)>;
type Judged = Vec<(Line, i64, Verdict)>;

/// Lands the events of a file: verified, each id once, in file order; refused lines to the rejected topic.
///
/// Returns when the end is reached and everything is acknowledged, or, on `shutdown`, when what was handed
/// to the verifiers by then is.
///
/// # Errors
/// `Config` when the file cannot be opened or the topics cannot be, `Data` when reading it fails midway (what came
/// before is landed), `Unavailable` when the log fails.
pub async fn file(settings: FileSettings, components: Components, shutdown: CancellationToken) -> Result<()> {
    let stop = shutdown.child_token();
    let input = lines::open(&settings.path).map_err(|source| unreadable(ErrorKind::Config, &settings.path, source))?;
    let pipeline = Pipeline::open(&settings.intake, &components, stop.clone()).await?;
    let label = settings.label.clone().unwrap_or_else(|| settings.path.display().to_string());
    let order = InOrder {
        label: label.into(),
        dedup: Arc::clone(&pipeline.dedup),
        refused: Arc::clone(&pipeline.refused),
        counters: Arc::clone(&components.counters),
        outgoing: pipeline.outgoing(),
    };
    let batches = read(input, settings.line_bytes_max, components.clock.clone());
    let rules = Arc::new(pipeline.rules.clone());
    let read = order.follow(judged(batches, rules, pipeline.verifiers, stop)).await;
    let published = pipeline.finish().await;
    published.and(read.map_err(|failed| match failed {
        Failed::Read(source) => unreadable(ErrorKind::Data, &settings.path, source),
        Failed::Verifier(source) => Error::new(ErrorKind::Internal, "a verifier panicked").with_source(source),
    }))
}

fn unreadable(kind: ErrorKind, path: &Path, source: std::io::Error) -> Error {
    let place = if path == Path::new("-") { "standard input".into() } else { format!("file `{}`", path.display()) };
    Error::new(kind, format!("could not read {place}")).with_source(source)
}

/// Why the file was not followed to its end.
enum Failed {
    Read(std::io::Error),
    Verifier(tokio::task::JoinError),
}

/// Reads on a thread of its own, which no one waits for: a read of standard input cannot be called off, and must not
/// hold up the end of the process. It ends by itself when nobody takes its batches.
fn read(
    input: Box<dyn std::io::Read + Send>,
    line_bytes_max: usize,
    clock: Clock,
) -> mpsc::Receiver<std::io::Result<Batch>> {
    let (out, batches) = mpsc::channel(BATCHES_AHEAD);
    std::thread::spawn(move || {
        let mut batch = Batch::new();
        let ended = lines::plain(input).and_then(|reader| {
            let mut lines = Texts::open(reader, line_bytes_max)?;
            let mut bytes = 0;
            while let Some(line) = lines.next()? {
                bytes += line.bytes.len();
                batch.push((line, clock.now_ms()));
                if batch.len() >= BATCH_LINES || bytes >= BATCH_BYTES || lines.may_wait() {
                    bytes = 0;
                    if out.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        // A closed queue means that the run is over; then neither the rest nor the error is wanted.
        let wanted = batch.is_empty() || out.blocking_send(Ok(batch)).is_ok();
        if let (true, Err(error)) = (wanted, ended) {
            drop(out.blocking_send(Err(error)));
        }
    });
    batches
}

/// Verdicts in the order of the lines; so many batches are under way as there are verifiers.
fn judged(
    batches: mpsc::Receiver<std::io::Result<Batch>>,
    rules: Arc<Rules>,
    verifiers: usize,
    stop: CancellationToken,
) -> impl Stream<Item = std::result::Result<Judged, Failed>> {
    let batches = stream::unfold((batches, stop), |(mut batches, stop)| async move {
        let next = tokio::select! {
            batch = batches.recv() => batch,
            () = stop.cancelled() => {
                // Nothing more is read; what has been handed over already still comes.
                batches.close();
                batches.recv().await
            }
        };
        Some((next?, (batches, stop)))
    });
    batches
        .map(move |batch| {
            let rules = Arc::clone(&rules);
            async move {
                let batch = batch.map_err(Failed::Read)?;
                tokio::task::spawn_blocking(move || judge(&rules, batch)).await.map_err(Failed::Verifier)
            }
        })
        .buffered(verifiers.max(1))
}

fn judge(rules: &Rules, batch: Batch) -> Judged {
    let verdict = |line: &Line, received_at_ms: i64| match &line.cut {
        None => rules.judge(&line.bytes, received_at_ms),
        Some(whole) => Verdict::Refused(Rejection::new(Reason::TooLarge, format!("a line of {} bytes", whole.len))),
    };
    let judged = batch.into_iter().map(|(line, received_at_ms)| {
        let line = Line { bytes: line.bytes.slice_ref(rules.opened(&line.bytes)), ..line };
        let verdict = verdict(&line, received_at_ms);
        (line, received_at_ms, verdict)
    });
    judged.collect()
}

/// Turns verdicts into records, one after the other.
struct InOrder {
    label: Arc<str>,
    dedup: Arc<Dedup>,
    refused: Arc<Refused>,
    counters: Arc<Counters>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl InOrder {
    async fn follow(
        self,
        judged: impl Stream<Item = std::result::Result<Judged, Failed>>,
    ) -> std::result::Result<(), Failed> {
        let mut judged = std::pin::pin!(judged);
        while let Some(batch) = judged.next().await {
            for (line, received_at_ms, verdict) in batch? {
                let Some(outgoing) = self.settle(line, received_at_ms, verdict) else { continue };
                // The publisher has ended: its own error says why.
                if self.outgoing.send(outgoing).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn settle(&self, line: Line, received_at_ms: i64, verdict: Verdict) -> Option<Outgoing> {
        add(&self.counters.received, 1);
        let arrival = self.arrival(line.bytes, received_at_ms);
        match verdict {
            Verdict::Believed { id, .. } if self.dedup.claim(&id, None) => Some(arrival.into_outgoing(id)),
            Verdict::Believed { .. } => {
                add(&self.counters.copies, 1);
                None
            }
            Verdict::Filtered => {
                add(&self.counters.filtered, 1);
                None
            }
            Verdict::Refused(rejection) => {
                let whole = line.cut.unwrap_or_else(|| Whole::of(&arrival.raw));
                if self.refused.before(&whole) {
                    add(&self.counters.rejected_again, 1);
                    return None;
                }
                Some(rejected::record(&arrival, &whole, rejection))
            }
        }
    }

    fn arrival(&self, raw: Bytes, received_at_ms: i64) -> Arrival {
        Arrival {
            raw,
            relay: Arc::clone(&self.label),
            received_at_ms,
            source: Source::File,
            phase: Phase::Backfill,
            held: Held::default(),
        }
    }
}
