//! `tidegate publish`: signs an event or reads signed ones, sends them to relays, and prints what each relay says.

mod compose;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use ::ingest::{Answer, Broadcast, BroadcastSettings, RelayAnswers, event_in};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use event::verify::verify;
use event::{Clock, Event, Limits, SecretKey, Span};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::input;
use crate::keys;
use crate::output::FormatArgs;
use crate::progress::{aside, counted, grouped, note};

/// Events that are under way together; relays answer them in their own time.
const BATCH_EVENTS: usize = 50;
/// Bytes of events that are under way together; a batch ends with the event that passes it.
const BATCH_BYTES: usize = 1 << 20;

/// Signs an event and publishes it, or publishes signed events.
///
/// Prints a row an event and relay: accepted, duplicate (it had it), refused, or
/// unknown (no answer), with the relay's own words. The exit code is 0 when every
/// event was taken by one relay at least, with --all by every relay.
///
/// The secret key is read from --key-file, else from the variable
/// TIDEGATE_SECRET_KEY; it also answers relays that ask who writes (NIP-42).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate publish --relay wss://nos.lol --key-file me.key --content 'gm'
  tidegate publish --relay ws://127.0.0.1:7777 --key-file me.key --kind 7 \\
    --content + --tag e=note1… --tag p=npub1…
  tidegate publish --key-file me.key --content 'gm' --dry-run
  tidegate events --raw | tidegate publish --events - --relay wss://nos.lol")]
pub(crate) struct Args {
    /// Relay URL, ws:// or wss://; repeatable, or separated by commas
    #[arg(
        long = "relay",
        value_name = "URL",
        value_delimiter = ',',
        env = "TIDEGATE_RELAYS",
        hide_env_values = true,
        required_unless_present = "dry_run"
    )]
    relays: Vec<String>,

    /// Publish the signed events of this file, JSON lines, plain, gzip or zstd; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "content", "tags", "created_at"])]
    events: Option<PathBuf>,

    /// File with the secret key, an nsec or hex; - is standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Longest wait for a connection and for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = Span::parse)]
    timeout: Span,

    /// Succeed only when every relay has taken every event
    #[arg(long)]
    all: bool,

    /// Print the signed event and send nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten, next_help_heading = "Event to sign")]
    draft: compose::DraftArgs,
}

/// Publishes.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let key = args.key()?;
    let clock = Clock::system();
    let (events, lines) = match &args.events {
        Some(path) => read(path.clone())?,
        None => one(args.draft.sign(key.as_ref(), &clock)?),
    };
    let sent = match args.dry_run {
        true => print(events).await,
        false => {
            let settings = BroadcastSettings {
                relays: args.relays,
                key,
                timeout: args.timeout.duration(),
                ..BroadcastSettings::default()
            };
            let broadcast = Broadcast::new(settings, clock)?;
            let tally = Tally { all: args.all, ..Tally::default() };
            tokio::select! {
                sent = send(broadcast, events, args.format, tally) => sent,
                () = shutdown.cancelled() => return Err(Failure::interrupted()),
            }
        }
    };
    // Nobody waits for a reader of standard input whose events have nowhere to go.
    sent?;
    lines.await.unwrap_or_else(|_| Err(Failure::new(Code::Failed, "the reader of events panicked")))
}

impl Args {
    fn key(&self) -> Result<Option<SecretKey>, Failure> {
        match &self.key_file {
            Some(path) if path.as_os_str() == "-" && self.events.as_ref().is_some_and(|events| events == path) => {
                Err(Failure::usage("standard input cannot hold both the key and the events"))
            }
            Some(path) => keys::read(path).map(Some),
            None => keys::from_environment(),
        }
    }
}

type Events = mpsc::Receiver<Event>;
/// Ends when all lines are read: says whether all of them were events.
type Lines = tokio::task::JoinHandle<Result<(), Failure>>;

fn one(event: Event) -> (Events, Lines) {
    let (send, events) = mpsc::channel(1);
    (events, tokio::task::spawn_blocking(move || send.blocking_send(event).map_err(|_| Failure::interrupted())))
}

/// Reads events on a thread of its own: what is no event is named, counted and not sent.
fn read(path: PathBuf) -> Result<(Events, Lines), Failure> {
    let mut lines = input::open(&path)?;
    let (send, events) = mpsc::channel(BATCH_EVENTS);
    let reading = move || {
        let (mut line, mut number, mut refused) = (Vec::new(), 0_u64, 0_u64);
        let limits = Limits::default();
        while input::next_line(&mut lines, &limits, &mut line)? {
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Event::parse(event_in(&line), &limits).and_then(verify) {
                // A closed queue means that the run is over.
                Ok(event) => match send.blocking_send(event.into_event()) {
                    Ok(()) => {}
                    Err(_) => return Ok(()),
                },
                Err(rejection) => {
                    refused += 1;
                    note(&format!("line {number} is not published: {rejection}"));
                }
            }
        }
        match refused {
            0 => Ok(()),
            lines => Err(Failure::new(Code::Failed, format!("{} held no valid event", counted(lines, "line")))),
        }
    };
    Ok((events, tokio::task::spawn_blocking(reading)))
}

/// The events themselves, one a line.
async fn print(mut events: Events) -> Result<(), Failure> {
    while let Some(event) = events.recv().await {
        aside(|| writeln!(io::stdout(), "{}", event.to_json()))?;
    }
    Ok(())
}

async fn send(
    mut broadcast: Broadcast,
    mut events: Events,
    format: FormatArgs,
    mut tally: Tally,
) -> Result<(), Failure> {
    let mut rows = format.printer(schema()?)?;
    while let Some(batch) = next_batch(&mut events).await {
        let answers = broadcast.send(&batch).await;
        tally.count(batch.len(), &answers);
        rows.write(&report(&batch, &answers)?)?;
        rows.flush()?;
    }
    rows.finish()?;
    tally.verdict()
}

/// What is waiting now, up to a batch; none at the end.
async fn next_batch(events: &mut Events) -> Option<Vec<Event>> {
    let mut batch = vec![events.recv().await?];
    let mut bytes = batch[0].content.len();
    while batch.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
        let Ok(event) = events.try_recv() else { break };
        bytes += event.content.len();
        batch.push(event);
    }
    Some(batch)
}

/// What became of all events.
#[derive(Debug, Default)]
struct Tally {
    all: bool,
    events: u64,
    taken: u64,
    /// Whether any relay has answered anything.
    answered: bool,
}

impl Tally {
    fn count(&mut self, events: usize, answers: &[RelayAnswers]) {
        for at in 0..events {
            let mut of_relays = answers.iter().map(|relay| &relay.answers[at]);
            let taken = if self.all { of_relays.all(Answer::taken) } else { of_relays.any(Answer::taken) };
            self.events += 1;
            self.taken += u64::from(taken);
        }
        self.answered |= answers.iter().flat_map(|relay| &relay.answers).any(|one| !matches!(one, Answer::Unknown(_)));
    }

    fn verdict(&self) -> Result<(), Failure> {
        let missed = self.events - self.taken;
        if missed == 0 {
            return Ok(());
        }
        let code = if self.answered { Code::Failed } else { Code::Unavailable };
        let whom = if self.all { "not taken by every relay" } else { "taken by no relay" };
        let was = if missed == 1 { "was" } else { "were" };
        let events = counted(self.events, "event");
        Err(Failure::new(code, format!("{} of {events} {was} {whom}", grouped(missed))))
    }
}

fn schema() -> Result<SchemaRef, Failure> {
    Ok(report(&[], &[])?.schema())
}

/// A row an event and relay.
fn report(events: &[Event], answers: &[RelayAnswers]) -> Result<RecordBatch, Failure> {
    let (mut ids, mut relays, mut words, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, event) in events.iter().enumerate() {
        for relay in answers {
            let (word, text) = match &relay.answers[at] {
                Answer::Accepted => ("accepted", ""),
                Answer::Duplicate => ("duplicate", ""),
                Answer::Refused(text) => ("refused", text.as_str()),
                Answer::Unknown(text) => ("unknown", text.as_str()),
            };
            ids.push(event.id.to_string());
            relays.push(relay.relay.as_str());
            words.push(word);
            texts.push(text);
        }
    }
    let text = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let ids: ArrayRef = Arc::new(StringArray::from(ids));
    let columns = [("relay", text(relays)), ("answer", text(words)), ("message", text(texts)), ("id", ids)];
    Ok(RecordBatch::try_from_iter(columns)?)
}
