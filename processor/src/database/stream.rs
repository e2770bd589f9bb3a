//! A stream and the tables of its outputs, in one process: the job commits to its topics as ever, and a follower of each
//! puts what is committed into its table.

use std::sync::Arc;

use event::Clock;
use event::layout::sink_topic;
use futures::future::{join, try_join_all};
use tokio_util::sync::CancellationToken;
use topic::Log;

use super::follow::{End, Followed, Follower};
use super::place::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::run::{OutputMode, StreamObserver, StreamSettings, StreamSummary, stream};
use crate::sink::create_topics;

/// The topic of each output of a job whose rows go to a database: where no topic is named, one of the job's own.
#[must_use]
pub fn topics(job: &Job, topic: Option<&str>) -> Vec<String> {
    let (size, slide) = job.window();
    let own = || topic.map_or_else(|| sink_topic(job.name(), size, slide), str::to_owned);
    job.outputs().iter().map(|output| output.name.clone().unwrap_or_else(own)).collect()
}

/// Opens a follower for each output; `updates` as in output mode update.
///
/// # Errors
/// As [`Follower::open`].
pub async fn followers(
    log: &Arc<dyn Log>,
    database: &Database,
    job: &Job,
    topics: &[String],
    updates: bool,
    clock: &Clock,
) -> Result<Vec<Follower>> {
    let mut followers = Vec::with_capacity(topics.len());
    for (output, topic) in topics.iter().enumerate() {
        let of = (output, topic.as_str());
        followers.push(Follower::open(Arc::clone(log), database, job, of, updates, clock).await?);
    }
    Ok(followers)
}

/// Runs followers side by side; the sum of what they did.
///
/// # Errors
/// As [`Follower::run`].
pub async fn follow(followers: Vec<Follower>, end: End, shutdown: CancellationToken) -> Result<Followed> {
    let runs = followers.into_iter().map(|follower| Box::pin(follower.run(end.clone(), shutdown.clone())));
    let mut all = Followed::default();
    for done in try_join_all(runs).await? {
        all.records += done.records;
        all.written += done.written;
        all.replaced += done.replaced;
    }
    Ok(all)
}

/// Runs a job as [`stream`] does, and keeps its tables. When the job has ended, what it committed is put into the tables
/// before this returns, unless the database is away and `shutdown` is asked for: then it waits in the topic.
///
/// # Errors
/// As [`stream`] and [`Follower::run`].
pub async fn stream_into(
    job: &Job,
    log: Arc<dyn Log>,
    clock: Clock,
    settings: StreamSettings,
    database: &Database,
    observer: &mut dyn StreamObserver,
    shutdown: CancellationToken,
) -> Result<StreamSummary> {
    if settings.output_mode == OutputMode::Complete {
        return Err(Error::new(ErrorKind::Config, "all open windows again and again are for the console")
            .with_hint("use --output-mode update for a table"));
    }
    let topics = topics(job, settings.output_topic.as_deref());
    for topic in &topics {
        create_topics(log.as_ref(), topic).await?;
    }
    let updates = settings.output_mode == OutputMode::Update;
    let followers = followers(&log, database, job, &topics, updates, &clock).await?;
    let settings =
        StreamSettings { output_topic: settings.output_topic.or_else(|| Some(topics[0].clone())), ..settings };
    let (ended, stop) = (CancellationToken::new(), shutdown.child_token());
    let job = async {
        let summary = Box::pin(stream(job, log, clock, settings, observer, stop.clone())).await;
        ended.cancel();
        summary
    };
    let tables = async {
        let followed = Box::pin(follow(followers, End::After(ended.clone()), shutdown.clone())).await;
        if followed.is_err() {
            // A job whose tables nobody keeps would be of no use to whoever reads them.
            stop.cancel();
        }
        followed
    };
    let (summary, followed) = join(job, tables).await;
    let summary = summary?;
    followed?;
    Ok(summary)
}
