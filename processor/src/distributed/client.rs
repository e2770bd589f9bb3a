//! The client of a cluster: finds its workers, hands them a batch, and goes on where one of them was lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::{eq, gt};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{QueryPlanner, SessionState};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use datafusion_distributed::{
    ChannelResolver, DistributedExt, DistributedLeafExec, GetWorkerInfoRequest, NetworkCoalesceExec,
    NetworkShuffleExec, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse, SessionStateBuilderExt, WorkerResolver,
    display_plan_ascii,
};
use futures::TryStreamExt;
use futures::future::join_all;
use url::Url;

use super::channel::Channels;
use super::codec::Codec;
use super::fault::heard;
use super::gather::GatherExec;
use super::layout::{Layout, Parcel, What, sorts};
use super::order::{Order, Place, Share};
use super::pane::PaneExec;
use super::window::WindowExec;
use super::worker::{Identity, version};
use crate::engine::{Emit, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::lake::{LakeObject, LakeTable};
use crate::plan::cut::Kind;
use crate::run::{BatchProgress, BatchSettings, BatchSummary};

/// Tasks of a stage on each worker. Two, so that a single worker has a network between its stages like any other: the
/// engine would run a plan of single tasks in the client.
pub(super) const TASKS_A_WORKER: usize = 2;
/// How often a batch is begun before it is given up.
const ATTEMPTS: usize = 4;
/// Within which a worker has to say who it is.
const ANSWER: Duration = Duration::from_secs(5);

/// Workers, each by `host:port`; a host's name stands for all its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    addresses: Vec<String>,
}

/// A worker that has said who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) url: Url,
    instance: String,
}

impl Cluster {
    /// The workers at `addresses`, `host:port` each.
    #[must_use]
    pub fn new(addresses: Vec<String>) -> Self {
        Self { addresses }
    }

    /// Runs `job` over the objects of `lake`, which workers know as `place`; as [`crate::run::batch`] otherwise.
    ///
    /// # Errors
    /// As [`crate::run::batch`]; `Unavailable` when no worker answers, or workers are lost again and again; `Config`
    /// when a worker is of another version.
    pub async fn batch(
        &self,
        job: &Job,
        lake: LakeTable,
        place: &str,
        settings: &BatchSettings,
        progress: Arc<BatchProgress>,
        on_rows: &mut (dyn FnMut(usize, RecordBatch) -> Result<()> + Send),
    ) -> Result<BatchSummary> {
        let Ordered { order, objects, skipped } = ordered(job, &lake, place, settings).await?;
        let mut workers = self.workers().await?;
        progress.objects_total.store(objects.len() as u64, Ordering::Relaxed);
        progress.objects_skipped.store(skipped as u64, Ordering::Relaxed);
        let mut rows_out = 0;
        let mut emit = |output: usize, rows: RecordBatch| {
            rows_out += rows.num_rows() as u64;
            on_rows(output, rows)
        };
        let mut run = Run::new(job, &order, objects.len(), &progress, &lake).await?;
        let mut attempt = 1;
        loop {
            let plan = planned(job, &order, &objects, &workers).await?;
            match run.attempt(&plan, &mut emit).await {
                Ok(()) => break,
                Err(error) => workers = self.after(error, &workers, attempt).await?,
            }
            attempt += 1;
        }
        Ok(BatchSummary {
            objects: progress.objects_done.load(Ordering::Relaxed),
            skipped: skipped as u64,
            rows_in: progress.rows.load(Ordering::Relaxed),
            rows_out,
        })
    }

    /// The plan of a batch as text: its stages, and what each worker has to do in them.
    ///
    /// # Errors
    /// As [`Cluster::batch`].
    pub async fn explain(&self, job: &Job, lake: LakeTable, place: &str, settings: &BatchSettings) -> Result<String> {
        let Ordered { order, objects, .. } = ordered(job, &lake, place, settings).await?;
        let plan = planned(job, &order, &objects, &self.workers().await?).await?;
        Ok(display_plan_ascii(plan.root.as_ref(), false))
    }

    /// The workers to go on with after `error`; the error itself where none of them was lost.
    pub(super) async fn after(&self, error: Error, before: &[Found], attempt: usize) -> Result<Vec<Found>> {
        let now = self.workers().await;
        let lost: Vec<&str> = before
            .iter()
            .filter(|worker| now.as_ref().is_ok_and(|now| !now.contains(worker)) || now.is_err())
            .map(|worker| worker.url.authority())
            .collect();
        if lost.is_empty() || attempt >= ATTEMPTS {
            return Err(error);
        }
        let now = now?;
        tracing::warn!(lost = lost.join(", "), left = now.len(), %error, "a worker was lost: it is begun again on the others");
        Ok(now)
    }

    /// The workers that answer, all of the client's version.
    pub(super) async fn workers(&self) -> Result<Vec<Found>> {
        let mut urls = Vec::new();
        for address in &self.addresses {
            urls.extend(resolve(address).await?);
        }
        urls.sort();
        urls.dedup();
        let channels = Channels::default();
        let answers = join_all(urls.iter().map(|url| identity(&channels, url))).await;
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for (url, answer) in urls.into_iter().zip(answers) {
            match answer {
                Ok(Identity { version: theirs, instance }) if theirs == version() => {
                    found.push(Found { url, instance })
                }
                Ok(Identity { version: theirs, .. }) => {
                    let message = format!("worker {} is version {theirs}, this is {}", url.authority(), version());
                    return Err(Error::new(ErrorKind::Config, message)
                        .with_hint("client and workers have to be the same build of tidegate"));
                }
                Err(why) => {
                    tracing::warn!(worker = url.authority(), why, "a worker does not answer, and is left out");
                    silent.push(url.authority().to_owned());
                }
            }
        }
        if found.is_empty() {
            let message = format!("no worker answers at {}", silent.join(", "));
            return Err(Error::new(ErrorKind::Unavailable, message)
                .with_hint("`tidegate cluster worker --listen HOST:PORT` starts one"));
        }
        Ok(found)
    }
}

/// What a batch is made of, whoever works on it.
struct Ordered {
    order: Arc<Order>,
    objects: Vec<LakeObject>,
    /// Objects that provably hold no row of the range.
    skipped: usize,
}

async fn ordered(job: &Job, lake: &LakeTable, place: &str, settings: &BatchSettings) -> Result<Ordered> {
    if job.plan.queries.iter().any(|query| query.kind == Kind::Bounded) {
        return Err(Error::job("a query of the job needs all rows at once, and is not run on a cluster")
            .with_hint("run it with --master local; or group by window(…) and join, rank and sort within the window"));
    }
    let (objects, skipped) = settings.objects(lake).await?;
    let order = Order::new(job, Place::new(place, lake.table()), (settings.from, settings.until));
    Ok(Ordered { order: Arc::new(order), objects, skipped })
}

/// Every address behind a name: a service with several replicas has as many.
async fn resolve(address: &str) -> Result<Vec<Url>> {
    let unknown = |why: String| {
        Error::new(ErrorKind::Config, format!("`{address}` is no address of a worker: {why}"))
            .with_hint("use host:port, as in tidegate://worker-1:7400,worker-2:7400")
    };
    let found = tokio::net::lookup_host(address).await.map_err(|why| unknown(why.to_string()))?;
    found.map(|address| Url::parse(&format!("http://{address}")).map_err(|why| unknown(why.to_string()))).collect()
}

async fn identity(channels: &Channels, url: &Url) -> std::result::Result<Identity, String> {
    let asked = async {
        let mut worker = channels.get_worker_client_for_url(url).await?;
        worker.get_worker_info(GetWorkerInfoRequest {}).await
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(info)) => Ok(Identity::parse(&info.version)),
        Ok(Err(DataFusionError::External(why))) => Err(why.to_string()),
        Ok(Err(error)) => Err(error.strip_backtrace()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// A plan, and the session in which it runs.
struct Planned {
    root: Arc<dyn ExecutionPlan>,
    session: SessionState,
}

async fn planned(job: &Job, order: &Arc<Order>, objects: &[LakeObject], workers: &[Found]) -> Result<Planned> {
    let tasks = workers.len() * TASKS_A_WORKER;
    let (state, closed) = (Layout::of_state(&job.plan).await?, Layout::of_closed(&job.plan));
    let shares = objects.iter().enumerate().map(|(number, object)| Share::of(number, object)).collect();
    let read = PaneExec::new(Arc::clone(order), shares, Arc::clone(state.schema()), None);
    let key = |at: &usize| Arc::new(Column::new(state.schema().field(*at).name(), *at)) as Arc<dyn PhysicalExpr>;
    let keys = state.keys().iter().map(key).collect();
    let spread = RepartitionExec::try_new(Arc::new(read), Partitioning::Hash(keys, 1))?;
    let shuffled = NetworkShuffleExec::try_new(Arc::new(spread), tasks)?;
    let merged = WindowExec::new(Arc::clone(order), Arc::new(shuffled), Arc::clone(closed.schema()), None);
    let brought = NetworkCoalesceExec::try_new(Arc::new(merged), tasks, 1)?;
    let session = SessionStateBuilder::new()
        .with_default_features()
        .with_query_planner(Arc::new(Given(Arc::new(GatherExec::new(closed, Arc::new(brought))))))
        .with_distributed_worker_resolver(Urls(workers.iter().map(|worker| worker.url.clone()).collect()))
        .with_distributed_channel_resolver(Channels::default())
        .with_distributed_user_codec(Codec(None))
        .with_distributed_scale_up_leaf_node_handler(share_out)
        .with_distributed_planner()
        .build();
    let nothing = LogicalPlanBuilder::empty(false).build()?;
    let root = session.query_planner().create_physical_plan(&nothing, &session).await?;
    Ok(Planned { root, session })
}

fn share_out(event: ScaleUpLeafNodeEvent<'_>) -> Option<DfResult<ScaleUpLeafNodeEventResponse>> {
    let leaf = event.plan.downcast_ref::<PaneExec>()?;
    let shared = DistributedLeafExec::try_new(Arc::clone(event.plan), leaf.shared_out(event.task_count));
    Some(shared.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
}

/// "Plans" what is planned already, so that the distributed planner finds it.
#[derive(Debug)]
struct Given(Arc<dyn ExecutionPlan>);

#[async_trait]
impl QueryPlanner for Given {
    async fn create_physical_plan(&self, _: &LogicalPlan, _: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::clone(&self.0))
    }
}

pub(super) struct Urls(pub(super) Vec<Url>);

impl WorkerResolver for Urls {
    fn get_urls(&self) -> DfResult<Vec<Url>> {
        Ok(self.0.clone())
    }
}

/// The client's half of a batch; it outlives attempts, so that nothing is given out twice.
struct Run<'a> {
    engine: Engine<'a>,
    layout: Layout,
    /// Closed windows, by cut, until all of them up to some end have come.
    held: Vec<Vec<RecordBatch>>,
    /// All windows that end until then have been given out.
    until: i64,
    /// Rows of queries, by object, until all of an object have come.
    rows: HashMap<i64, Vec<(usize, RecordBatch)>>,
    /// Objects whose rows have been given out.
    read: Vec<bool>,
    /// Lines that are no row, of this attempt.
    unreadable: u64,
    progress: &'a BatchProgress,
    lake: &'a LakeTable,
}

impl<'a> Run<'a> {
    async fn new(
        job: &'a Job,
        order: &Order,
        objects: usize,
        progress: &'a BatchProgress,
        lake: &'a LakeTable,
    ) -> Result<Self> {
        let engine = Engine::new(job, order.range(), Vec::new(), []).await?;
        Ok(Self {
            engine,
            layout: Layout::of_closed(&job.plan),
            held: vec![Vec::new(); job.plan.cuts.len()],
            until: i64::MIN,
            rows: HashMap::new(),
            read: vec![false; objects],
            unreadable: 0,
            progress,
            lake,
        })
    }

    async fn attempt(&mut self, plan: &Planned, emit: &mut Emit<'_>) -> Result<()> {
        self.held.iter_mut().for_each(Vec::clear);
        self.rows.clear();
        self.unreadable = 0;
        self.progress.rows.store(0, Ordering::Relaxed);
        self.progress.objects_done.store(0, Ordering::Relaxed);
        let mut batches = plan.root.execute(0, plan.session.task_ctx()).map_err(heard)?;
        while let Some(batch) = batches.try_next().await.map_err(heard)? {
            for parcel in sorts(&batch)? {
                self.take(&parcel, emit).await?;
            }
        }
        if self.until != i64::MAX {
            return Err(Error::new(ErrorKind::Unavailable, "the workers ended before all windows had come"));
        }
        self.lake.note_unreadable(self.unreadable);
        Ok(())
    }

    async fn take(&mut self, parcel: &Parcel, emit: &mut Emit<'_>) -> Result<()> {
        match parcel.what {
            What::Section(section) => {
                let rows = self.layout.section(parcel)?.ok_or_else(|| Error::internal("a section has no rows"))?;
                match self.layout.query(section) {
                    // The windows until then were given out by an earlier attempt.
                    None => {
                        self.held[section].push(filtered(&rows, gt(parcel.at(), &Int64Array::new_scalar(self.until)))?)
                    }
                    Some(query) => self.hold(query, &rows, parcel.at())?,
                }
            }
            What::Closed => {
                let until = parcel.at().values().iter().copied().max().unwrap_or(self.until);
                if until > self.until {
                    let given = self.held.iter_mut().map(std::mem::take).collect();
                    self.engine.close_given(until, given, emit).await?;
                    self.until = until;
                }
            }
            What::Unreadable => self.unreadable += total(parcel.count()),
            What::Reading => {
                self.progress.rows.fetch_add(total(parcel.count()), Ordering::Relaxed);
            }
            What::Read => {
                self.progress.rows.fetch_add(total(parcel.count()), Ordering::Relaxed);
                self.progress.objects_done.fetch_add(parcel.at().len() as u64, Ordering::Relaxed);
                for object in parcel.at().values() {
                    let rows = self.rows.remove(object).unwrap_or_default();
                    let done = usize::try_from(*object).ok().and_then(|object| self.read.get_mut(object));
                    if let Some(done) = done.filter(|done| !**done) {
                        *done = true;
                        rows.into_iter().try_for_each(|(query, rows)| emit(query, rows))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps rows of a query until their object has been read.
    fn hold(&mut self, query: usize, rows: &RecordBatch, at: &Int64Array) -> Result<()> {
        let mut objects = at.values().to_vec();
        objects.sort_unstable();
        objects.dedup();
        for object in objects {
            let of = filtered(rows, eq(at, &Int64Array::new_scalar(object)))?;
            self.rows.entry(object).or_default().push((query, of));
        }
        Ok(())
    }
}

fn filtered(rows: &RecordBatch, which: std::result::Result<BooleanArray, ArrowError>) -> Result<RecordBatch> {
    Ok(filter_record_batch(rows, &which?)?)
}

fn total(count: &Int64Array) -> u64 {
    count.values().iter().map(|count| u64::try_from(*count).unwrap_or(0)).sum()
}
