//! The one commit point of a stream job.
//!
//! First the state goes to the object store, then one transaction makes results, late rows, the control record and the
//! offsets visible together. An outage is waited out: what is to be committed is kept, and the transaction is begun
//! anew when the log answers again. Whoever has been fenced looks at the control record: one that it does not know
//! means that another run has taken over, its own that its transaction only timed out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use event::layout::JOBS_TOPIC;
use event::{Clock, EventTime};
use object_store::ObjectStore;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topic::{Log, Offsets, Record, Writer};

use super::checkpoint::{Control, Owner, Segment, Snapshots, VERSION, control_record, create_jobs_topic, read_control};
use super::settings::{Pace, StreamSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;

/// State that lies in this many segments a cut is written whole, and from the least number on when it is worth it: so a
/// row is written again when as many have become useless.
const SEGMENTS_MAX: usize = 64;
const SEGMENTS_MIN: usize = 4;

/// How often a run tries to put its name into the control record, and to keep it there.
const CLAIMS: usize = 3;
/// How often one that was fenced looks for the name of the run that did it; the waits double from 20 ms, 5 s in all.
const LOOKS: usize = 8;
const ONE_COPY: &str =
    "one copy of a job runs at a time; stop the other, or give this one a name or checkpoint of its own";

/// What a transaction writes beside the control record: topic and records.
pub(super) type Outbox = Vec<(String, Vec<Record>)>;

/// State to be kept, by cut.
pub(super) enum State {
    /// What came since the last commit.
    Fresh(Vec<RecordBatch>),
    /// Everything.
    Whole(Vec<RecordBatch>),
}

/// What a job's transactions write to, and where its state lies.
pub(super) struct Commits {
    pub(super) id: String,
    log: Arc<dyn Log>,
    clock: Clock,
    writer: Box<dyn Writer>,
    snapshots: Snapshots,
    shutdown: CancellationToken,
    pace: Pace,
    /// What is to be committed next, and says where the job stands.
    pub(super) control: Control,
    /// The control record in the log, as far as this run knows.
    committed: Option<Control>,
    /// When the last commit ended, and how long it took.
    pub(super) at: Instant,
    pub(super) took: Duration,
}

impl Commits {
    /// Fences older copies of the job, reads where the last one left off, and says whether there is anything to go on
    /// with. If there is, this run's name is put there at once, so that a copy which was fenced goes no further.
    pub(super) async fn open(
        job: &Job,
        log: Arc<dyn Log>,
        clock: Clock,
        id: String,
        place: (Arc<dyn ObjectStore>, Path),
        settings: &StreamSettings,
        shutdown: CancellationToken,
    ) -> Result<(Self, bool)> {
        create_jobs_topic(log.as_ref()).await?;
        let writer = log.writer(Some(&id)).await?;
        let snapshots = Snapshots { store: place.0, prefix: place.1.join(id.as_str()) };
        let (at, took, pace) = (Instant::now(), Duration::ZERO, settings.pace);
        let (control, committed) = (Control::default(), None);
        let mut commits = Self { id, log, clock, writer, snapshots, shutdown, pace, control, committed, at, took };
        let mut tries = CLAIMS;
        loop {
            let resumed = commits.read(job, settings.restart).await?;
            if !resumed {
                return Ok((commits, false));
            }
            match commits.claim(None).await {
                // What was fenced went one commit further, and this one with it.
                Err(error) if error.kind() == ErrorKind::Fenced && tries > 1 => {
                    tries -= 1;
                    commits.writer = commits.log.writer(Some(&commits.id)).await?;
                }
                claimed => return claimed.map(|()| (commits, true)),
            }
        }
    }

    /// Reads the control record; whether it says where to go on.
    async fn read(&mut self, job: &Job, restart: bool) -> Result<bool> {
        let mut wait = self.pace.retry;
        let found = loop {
            match read_control(self.log.as_ref(), &self.id).await {
                // An open transaction of another job can hide it for as long as that lasts.
                Err(error) if error.kind() == ErrorKind::Unavailable => self.pause(&mut wait, error).await?,
                found => break found?,
            }
        };
        let generation = found.as_ref().map_or(0, |control| control.owner.generation) + 1;
        self.committed.clone_from(&found);
        let found = found.filter(|_| !restart);
        if let Some(control) = &found {
            check_control(job, &self.id, control)?;
        }
        let resumed = found.is_some();
        self.control = found.unwrap_or_else(|| Control { version: VERSION, ..Control::default() });
        self.control.owner = owner(&self.clock, generation);
        self.control.cuts = job.plan.fingerprints();
        Ok(resumed)
    }

    /// Makes this run the job's, before its first result: a copy that was fenced can then see who did it.
    pub(super) async fn claim(&mut self, offsets: Option<(&str, &Offsets)>) -> Result<()> {
        let control = self.control.clone();
        self.transact(control, &Vec::new(), offsets).await?;
        // What earlier runs wrote and did not commit is of no use to anyone.
        let kept = self.objects();
        self.snapshots.collect(&kept, self.control.owner.generation).await;
        Ok(())
    }

    /// The state that the control record refers to, by cut of the job.
    pub(super) async fn restore(&mut self, job: &Job) -> Result<Vec<(usize, RecordBatch)>> {
        let fingerprints = job.plan.fingerprints();
        let mut state = Vec::with_capacity(self.control.segments.len());
        for segment in self.control.segments.clone() {
            let cut = fingerprints.iter().position(|(fingerprint, _)| *fingerprint == segment.cut);
            let cut = cut.ok_or_else(|| Error::internal("a checked checkpoint holds an unknown cut"))?;
            let mut wait = self.pace.retry;
            let rows = loop {
                match self.snapshots.read(&segment).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => self.pause(&mut wait, error).await?,
                    Err(error) => {
                        // Whoever took over since may have removed it.
                        let mine = self.control.clone();
                        self.check_control(&mine, false).await?;
                        return Err(error);
                    }
                    Ok(rows) => break rows,
                }
            };
            state.push((cut, rows));
        }
        Ok(state)
    }

    /// Whether everything should be written anew: most of what lies in the segments is merged or gone by now, of which
    /// `rows` are left, or they are too many.
    pub(super) fn wants_whole(&self, rows: usize) -> bool {
        let segments = self.control.segments.len();
        let written: u64 = self.control.segments.iter().map(|segment| segment.rows).sum();
        let cuts = self.control.cuts.len().max(1);
        segments >= SEGMENTS_MAX * cuts || (segments >= SEGMENTS_MIN * cuts && written > 2 * rows as u64)
    }

    /// Writes the state, then commits everything together. `control` says the rest of where the job stands.
    pub(super) async fn commit(
        &mut self,
        mut control: Control,
        state: State,
        outbox: &Outbox,
        offsets: Option<(&str, &Offsets)>,
    ) -> Result<()> {
        let started = Instant::now();
        control.epoch = self.control.epoch + 1;
        let (kept, state) = match state {
            State::Fresh(state) => (self.control.segments.clone(), state),
            State::Whole(state) => (Vec::new(), state),
        };
        control.segments = kept;
        for ((cut, _), state) in control.cuts.iter().zip(&state) {
            control.segments.extend(self.write_segment(control.epoch, cut, state).await?);
        }
        let before: HashSet<String> = self.objects();
        self.transact(control, outbox, offsets).await?;
        let after = self.objects();
        for object in before.difference(&after) {
            self.snapshots.forget(object).await;
        }
        self.at = Instant::now();
        self.took = started.elapsed();
        Ok(())
    }

    fn objects(&self) -> HashSet<String> {
        self.control.segments.iter().map(|segment| segment.object.clone()).collect()
    }

    async fn write_segment(&mut self, epoch: u64, cut: &str, state: &RecordBatch) -> Result<Option<Segment>> {
        let mut wait = self.pace.retry;
        let name = format!("{:08}-{epoch:012}", self.control.owner.generation);
        loop {
            match self.snapshots.write(&name, cut, state).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => self.pause(&mut wait, error).await?,
                written => return written,
            }
        }
    }

    /// One transaction, begun anew until it is decided.
    async fn transact(&mut self, control: Control, outbox: &Outbox, offsets: Option<(&str, &Offsets)>) -> Result<()> {
        let mut wait = self.pace.retry;
        let mut tried = self.attempt(&control, outbox, offsets).await;
        let mut fenced = 0;
        while let Err(failed) = tried {
            match failed.kind() {
                ErrorKind::Unavailable => {}
                // Its own transaction may have timed out.
                ErrorKind::Fenced if fenced == 0 => fenced += 1,
                // Whoever fences puts a name into the control record, or has ended after it saw this one's there.
                ErrorKind::Fenced => {
                    self.look_for_another(&control).await?;
                    fenced += 1;
                    // Two copies would fence each other for ever.
                    if fenced > CLAIMS {
                        let message = format!("job `{}` is being taken over by another copy", self.id);
                        return Err(Error::new(ErrorKind::Fenced, message).with_hint(ONE_COPY).with_source(failed));
                    }
                }
                _ => return Err(failed),
            }
            self.pause(&mut wait, failed).await?;
            tried = match self.reopen(&control).await {
                Ok(true) => Ok(()),
                Ok(false) => self.attempt(&control, outbox, offsets).await,
                Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
                Err(error) => return Err(error),
            };
        }
        self.committed = Some(control.clone());
        self.control = control;
        Ok(())
    }

    async fn attempt(&mut self, control: &Control, outbox: &Outbox, offsets: Option<(&str, &Offsets)>) -> Result<()> {
        let writer = &mut self.writer;
        writer.begin().await?;
        for (topic, records) in outbox {
            writer.send(topic, records.clone()).await?;
        }
        writer.send(JOBS_TOPIC, vec![control_record(&self.id, control, self.clock.now_ms())?]).await?;
        if let Some((topic, offsets)) = offsets {
            writer.send_offsets(&self.id, topic, offsets).await?;
        }
        writer.commit().await?;
        Ok(())
    }

    /// Opens a new writer, unless another run has written a control record since this one's last; `true` when
    /// `wanted` is there already. A new writer waits until what the old one had begun is decided.
    async fn reopen(&mut self, wanted: &Control) -> Result<bool> {
        match self.check_control(wanted, false).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // Its own open transaction may be what hides the record: the new writer ends it.
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error),
        }
        self.writer = self.log.writer(Some(&self.id)).await?;
        self.check_control(wanted, true).await
    }

    /// Gives a run that takes over the time to put its name into the control record.
    ///
    /// # Errors
    /// `Fenced`, with that name, when it is there.
    async fn look_for_another(&mut self, wanted: &Control) -> Result<()> {
        let mut wait = self.pace.retry;
        for _ in 0..LOOKS {
            match self.check_control(wanted, false).await {
                Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
                _ => rest(wait).await,
            }
            wait *= 2;
        }
        Ok(())
    }

    /// Whether the control record is `wanted`; it has to be that or the last one known. Unless everything is `decided`,
    /// an older one may still be seen.
    async fn check_control(&mut self, wanted: &Control, decided: bool) -> Result<bool> {
        let found = read_control(self.log.as_ref(), &self.id).await?;
        if found.as_ref() == Some(wanted) {
            return Ok(true);
        }
        let order = |control: &Option<Control>| control.as_ref().map(|c| (c.owner.generation, c.epoch));
        if found == self.committed || (!decided && order(&found) < order(&self.committed)) {
            return Ok(false);
        }
        let Owner { place, since, .. } = found.map(|control| control.owner).unwrap_or_default();
        Err(Error::new(
            ErrorKind::Fenced,
            format!("job `{}` was taken over by {place}, which began at {since}", self.id),
        )
        .with_hint(ONE_COPY))
    }

    /// Waits, longer each time; ends with the error when the job is to stop.
    async fn pause(&mut self, wait: &mut Duration, error: Error) -> Result<()> {
        tracing::warn!(job = self.id, error = %Chain(&error), wait_ms = wait.as_millis(), "could not commit, will try again");
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(error),
            () = rest(*wait) => {}
        }
        *wait = (*wait * 2).min(self.pace.retry_max);
        Ok(())
    }
}

/// Waits; without a wait the others still get their turn, and no clock decides whose it is.
async fn rest(wait: Duration) {
    if wait.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(wait).await;
    }
}

/// An error with what is beneath it, on one line.
struct Chain<'a>(&'a Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn owner(clock: &Clock, generation: u64) -> Owner {
    let now = clock.now_ms();
    let since = EventTime::from_millis(now).map_or_else(|| now.to_string(), |time| time.to_string());
    let place = event::place();
    // Address and time of the moment tell two runs of one process apart.
    let seed = format!("{place} {now} {:?} {:?}", Instant::now(), std::thread::current().id());
    Owner { run: hex::encode(&Sha256::digest(seed)[..8]), generation, place, since }
}

fn check_control(job: &Job, id: &str, control: &Control) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Checkpoint, message));
    if control.version != VERSION {
        return refuse(format!("checkpoint of job `{id}` has form {}, not {VERSION}", control.version))
            .map_err(|error| error.with_hint("another version of tidegate wrote it; begin anew with --restart"));
    }
    if control.finished {
        return Err(Error::new(ErrorKind::Config, format!("job `{id}` has finished: it closed all its windows"))
            .with_hint("begin anew with --restart, or look without committing with --debug"));
    }
    let mine = job.plan.fingerprints();
    let unknown: Vec<&(String, String)> =
        control.cuts.iter().filter(|(cut, _)| !mine.iter().any(|(other, _)| other == cut)).collect();
    let new: Vec<&(String, String)> =
        mine.iter().filter(|(cut, _)| !control.cuts.iter().any(|(other, _)| other == cut)).collect();
    if unknown.is_empty() && new.is_empty() {
        return Ok(());
    }
    let (before, now) = (unknown.first().map(|(_, text)| text.as_str()), new.first().map(|(_, text)| text.as_str()));
    refuse(format!("checkpoint of job `{id}` holds the state of another query{}", difference(before, now))).map_err(
        |error| {
            error.with_hint(
                "what stands below a window has changed, and its state cannot be used; begin anew with --restart, or \
                 name another --checkpoint-dir",
            )
        },
    )
}

/// The lines in which two texts differ.
fn difference(before: Option<&str>, now: Option<&str>) -> String {
    let lines = |text: Option<&str>| text.unwrap_or_default().lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>();
    let (before, now) = (lines(before), lines(now));
    let mut text = String::new();
    for (sign, mine, other) in [('-', &before, &now), ('+', &now, &before)] {
        for line in mine.iter().filter(|line| !other.contains(line)).take(3) {
            text.push_str(&format!("\n  {sign} {line}"));
        }
    }
    text
}
