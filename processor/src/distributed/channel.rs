//! Connections to workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{ChannelResolver, WorkerChannel};
use tonic::transport::{Channel, Endpoint};
use url::Url;

/// Within which a worker has to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a connection is asked for a sign of life, and how long it may take to give one: a worker that is frozen, or
/// cut off, would otherwise be waited for without end.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// One connection to each worker.
#[derive(Clone, Default)]
pub(super) struct Channels {
    open: Arc<Mutex<HashMap<Url, Channel>>>,
}

impl Channels {
    async fn get(&self, url: &Url) -> DfResult<Channel> {
        let open = |channels: &Self| channels.open.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        if let Some(channel) = open(self) {
            return Ok(channel);
        }
        let endpoint = Endpoint::from_shared(url.to_string()).map_err(lost)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(lost)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(open.entry(url.clone()).or_insert(channel).clone())
    }
}

/// The transport's own words say nothing; those beneath them do.
fn lost(error: tonic::transport::Error) -> DataFusionError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(beneath) = cause.source() {
        cause = beneath;
    }
    DataFusionError::External(format!("no connection: {cause}").into())
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> DfResult<Box<dyn WorkerChannel>> {
        Ok(create_worker_client(BoxCloneSyncChannel::new(self.get(url).await?)))
    }
}
