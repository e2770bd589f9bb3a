//! Ingest, lander, documents of relays and any number of stream jobs in one process, on one log: what `up` and
//! `quickstart` run.
//!
//! The order of the end matters: the sources first, then the jobs, and the lander last, so that all that was published
//! has landed.

use std::sync::Arc;

use ::ingest::lake::LanderSettings;
use ::ingest::{Components, NostrSettings, OpenSeaSettings};
use processor::Job;
use processor::run::StreamSettings;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Failure};
use crate::lake::Landers;
use crate::relays::Directory;
use crate::store::Location;
use crate::stream::Console;

/// All of tidegate in one process.
pub(crate) struct Service {
    /// Log, clock, counters.
    pub(crate) components: Components,
    /// Which relays, and what is believed; none follows no relay.
    pub(crate) nostr: Option<NostrSettings>,
    /// OpenSea's stream, if it is wanted.
    pub(crate) opensea: Option<OpenSeaSettings>,
    /// The landers of each source, unless the lake is not wanted.
    pub(crate) lander: Option<(Vec<Vec<LanderSettings>>, Location)>,
    /// Documents of relays, if they are wanted.
    pub(crate) directory: Option<Directory>,
    /// Stream jobs, each with its own name.
    pub(crate) jobs: Vec<StreamJob>,
}

/// A job and where its windows go.
pub(crate) struct StreamJob {
    pub(crate) job: Job,
    pub(crate) settings: StreamSettings,
    pub(crate) console: Console,
}

impl Service {
    /// Runs until `shutdown`, then drains. The first station to fail stops the others.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let (stop, jobs_stop) = (shutdown.child_token(), CancellationToken::new());
        let nostr = self.nostr.iter().map(|source| &source.intake);
        for intake in nostr.chain(self.opensea.iter().map(|source| &source.intake)) {
            ::ingest::create_topics(self.components.log.as_ref(), intake).await?;
        }
        let mut landers = Vec::new();
        if let Some((sources, location)) = self.lander {
            for settings in sources {
                landers.push(Landers::start(settings, &self.components, &location, stop.clone())?);
            }
        }
        let mut jobs = JoinSet::new();
        for job in self.jobs {
            jobs.spawn(job.run(self.components.clone(), stop.clone(), jobs_stop.clone()));
        }
        if let Some(directory) = self.directory {
            jobs.spawn(kept(directory, self.components.clone(), stop.clone(), jobs_stop.clone()));
        }
        let (with, until) = (self.components.clone(), stop.clone());
        let relays = self.nostr.map(|settings| ::ingest::nostr(settings, with, until));
        let (with, until) = (self.components, stop.clone());
        let stream = self.opensea.map(|settings| ::ingest::opensea(settings, with, until));
        let (relays, stream) = tokio::join!(Box::pin(source(relays, &stop)), Box::pin(source(stream, &stop)));
        jobs_stop.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = jobs.join_next().await {
            outcome = outcome.and(ended.unwrap_or_else(|_| Err(Failure::new(Code::Failed, "a job panicked"))));
        }
        for lander in landers {
            outcome = outcome.and(lander.drain().await);
        }
        // A station that failed has stopped the sources, so it is the cause.
        outcome.and(relays).and(stream)
    }
}

/// Runs a source, if there is one; should it fail, it stops the others.
async fn source(
    source: Option<impl Future<Output = ::ingest::Result<()>>>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let Some(source) = source else { return Ok(()) };
    source.await.map_err(|error| {
        stop.cancel();
        Failure::from(error)
    })
}

/// Documents of relays beside the jobs; like theirs, their failure stops the relays.
async fn kept(
    directory: Directory,
    with: Components,
    stop: CancellationToken,
    jobs_stop: CancellationToken,
) -> Result<(), Failure> {
    let outcome = Box::pin(directory.run(with, jobs_stop)).await;
    if outcome.is_err() {
        stop.cancel();
    }
    outcome
}

impl StreamJob {
    async fn run(
        mut self,
        with: Components,
        stop: CancellationToken,
        jobs_stop: CancellationToken,
    ) -> Result<(), Failure> {
        let log = Arc::clone(&with.log);
        let run = processor::run::stream(&self.job, log, with.clock, self.settings, &mut self.console, jobs_stop);
        let outcome = Box::pin(run).await.map_err(Failure::from);
        if outcome.is_err() {
            stop.cancel();
        }
        self.console.finish()?;
        outcome.map(|_| ())
    }
}
