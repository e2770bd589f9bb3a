//! A worker: serves stages of distributed batches until it is told to stop.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use datafusion::error::DataFusionError;
use datafusion_distributed::{DistributedExt, WorkerQueryContext};
use event::Table;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::channel::Channels;
use super::client::TASKS_A_WORKER;
use super::codec::Codec;
use super::order::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::LakeTable;
use crate::memory::Memory;
use crate::plan::functions::register_functions;

/// Opens the folder of a topic, named as the client's path or URI, with the worker's own keys.
pub type OpenLake = Arc<dyn Fn(&str, Table) -> Result<LakeTable> + Send + Sync>;

/// What a worker works with.
pub struct Worker {
    /// How many threads compute at once, at least one.
    pub threads: usize,
    /// What a job may hold in memory here.
    pub memory: Memory,
    /// Opens lakes.
    pub open: OpenLake,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("threads", &self.threads).field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// What clients and workers have to share.
#[must_use]
pub fn version() -> String {
    format!("{} (DataFusion {})", env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION)
}

/// Between the version and what tells one life of a worker from the next.
const INSTANCE: &str = " #";

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: String,
    pub(super) instance: String,
}

impl Identity {
    pub(super) fn parse(text: &str) -> Self {
        let (version, instance) = text.split_once(INSTANCE).unwrap_or((text, ""));
        Self { version: version.to_owned(), instance: instance.to_owned() }
    }
}

impl Worker {
    /// Serves until `shutdown`; stages that run then are cut off.
    ///
    /// # Errors
    /// `Config` when the address cannot be used.
    pub async fn serve(mut self, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
        self.threads = self.threads.max(1);
        let failed = |error| Error::new(ErrorKind::Config, "could not serve stages").with_source(error);
        let address = listener.local_addr().map_err(failed)?;
        let side = Arc::new(Side::new(self, address));
        let worker = datafusion_distributed::Worker::from_session_builder(move |query: WorkerQueryContext| {
            let side = Arc::clone(&side);
            async move {
                let mut state = query
                    .builder
                    .with_distributed_user_codec(Codec(Some(side)))
                    .with_distributed_channel_resolver(Channels::default())
                    .build();
                register_functions(&mut state)?;
                Ok::<_, DataFusionError>(state)
            }
        });
        let instance: u64 = rand::random();
        let worker = worker.with_version(format!("{}{INSTANCE}{instance:016x}", version()));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = Server::builder().add_service(worker.into_worker_server()).serve_with_incoming(incoming);
        tokio::select! {
            served = served => served.map_err(|error| Error::internal("could not serve stages").with_source(error)),
            () = shutdown.cancelled() => Ok(()),
        }
    }
}

/// A worker's side of an operator.
pub(super) struct Side {
    worker: Worker,
    address: SocketAddr,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Side {
    fn new(worker: Worker, address: SocketAddr) -> Self {
        let turns = Arc::new(Semaphore::new(worker.threads));
        Self { worker, address, turns }
    }

    pub(super) const fn threads(&self) -> usize {
        self.worker.threads
    }

    /// Of a task, of which a job has several here.
    pub(super) const fn memory(&self) -> Memory {
        self.worker.memory.share(TASKS_A_WORKER)
    }

    /// As many as there are threads: whoever computes has one.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    pub(super) fn open(&self, place: &Place) -> Result<LakeTable> {
        (self.worker.open)(&place.uri, place.table()?)
    }

    pub(super) fn told(&self, error: &Error) -> DataFusionError {
        super::fault::told(error, &self.address.to_string())
    }
}

/// Says when a task of a stage begins and ends; one that is cut off ends as well.
#[derive(Debug)]
pub(super) struct Stage {
    stage: &'static str,
    job: String,
    begun: Instant,
    complete: bool,
}

impl Stage {
    pub(super) fn begin(stage: &'static str, job: &str) -> Self {
        tracing::info!(stage, job, "stage begun");
        Self { stage, job: job.to_owned(), begun: Instant::now(), complete: false }
    }

    pub(super) const fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        tracing::info!(stage = self.stage, job = self.job, seconds, complete = self.complete, "stage ended");
    }
}
