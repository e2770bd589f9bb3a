//! The relay as a whole: loads what it serves, listens, and owns every task it starts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use event::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::connection;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::Generator;
use crate::hub::Hub;
use crate::live;
use crate::load::{Loaded, read_file};
use crate::settings::Settings;
use crate::store::Store;

/// What all connections of a relay share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) hub: Hub,
    pub(crate) huge_sent: AtomicBool,
    drops: AtomicU64,
}

impl Shared {
    pub(crate) fn now_secs(&self) -> i64 {
        self.clock.now_ms().div_euclid(1_000)
    }

    /// Whether a fault may still drop a connection; counts it if so.
    pub(crate) fn may_drop(&self) -> bool {
        let max = self.settings.faults.drops_max.unwrap_or(u64::MAX);
        let next = |drops: u64| (drops < max).then_some(drops + 1);
        self.drops.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// A relay that listens.
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    generator: Option<Generator>,
    started_ms: i64,
    loaded: Loaded,
}

impl Server {
    /// Reads the files, makes up the history, and listens; connections are answered from [`Server::serve`] on.
    ///
    /// # Errors
    /// `Config` when the settings make no sense; `Unavailable` when a file cannot be read or the address cannot be
    /// listened on.
    pub async fn bind(settings: Settings, clock: Clock) -> Result<Self> {
        let generator = settings.generate.clone().map(Generator::try_new).transpose()?;
        let listener = TcpListener::bind(settings.listen).await.map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("could not listen on address `{}`", settings.listen))
                .with_source(e)
        })?;
        let local_addr = listener
            .local_addr()
            .map_err(|e| Error::new(ErrorKind::Internal, "could not learn the address listened on").with_source(e))?;
        let started_ms = clock.now_ms();
        let filling = tokio::task::spawn_blocking(move || fill(&settings, started_ms).map(|filled| (settings, filled)));
        let filled =
            filling.await.map_err(|e| Error::new(ErrorKind::Internal, "loading events panicked").with_source(e))?;
        let (settings, (store, loaded)) = filled?;
        let hub = Hub::new(store, &settings);
        let (huge_sent, drops) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { settings, clock, hub, huge_sent, drops });
        Ok(Self { listener, local_addr, shared, generator, started_ms, loaded })
    }

    /// The address listened on, with the port that was taken.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What came of loading files and history.
    #[must_use]
    pub const fn loaded(&self) -> Loaded {
        self.loaded
    }

    /// Serves until `shutdown` fires, then says goodbye to every connection.
    ///
    /// # Errors
    /// `Internal` when the generator stops; a connection that fails ends alone.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let Self { listener, local_addr, shared, generator, started_ms, .. } = self;
        info!(address = %local_addr, events = shared.hub.len(), "relay listens");
        let generating = async {
            match generator {
                Some(generator) if generator.settings().rate > 0.0 => live::run(generator, started_ms, &shared).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = accept(listener, &shared, &shutdown) => Ok(()),
            () = generating => Err(Error::new(ErrorKind::Internal, "the generator stopped")),
        }
    }
}

async fn accept(listener: TcpListener, shared: &Arc<Shared>, shutdown: &CancellationToken) {
    let mut connections = JoinSet::new();
    let mut seen = 0_u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    seen += 1;
                    admit(stream, peer, seen, shared, shutdown, &mut connections);
                }
                // Out of file descriptors, most likely: the next turn may find one.
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                warn!(%error, "a connection's task panicked");
            },
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    seen: u64,
    shared: &Arc<Shared>,
    shutdown: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    if seen <= shared.settings.faults.refuse {
        return info!(%peer, "refused, as asked");
    }
    if connections.len() >= shared.settings.connections_max {
        return debug!(%peer, "refused: too many connections");
    }
    connections.spawn(connection::run(stream, Arc::clone(shared), shutdown.clone()));
}

/// Everything stored at the start.
fn fill(settings: &Settings, now_ms: i64) -> Result<(Store, Loaded)> {
    let (mut store, mut skipped, mut offered) = (Store::default(), 0, 0);
    let now_secs = now_ms.div_euclid(1_000);
    let mut keep = |entry: Entry, forged: bool| {
        offered += 1;
        let entry = Arc::new(entry);
        if forged || !settings.nip01 {
            store.keep(entry);
        } else {
            // What the rules do not keep shows in the count of events held.
            store.apply(&entry, now_secs, None);
        }
    };
    for path in &settings.events {
        skipped += read_file(path, settings.nip01, |entry| keep(entry, false))?;
    }
    if let Some(generate) = &settings.generate {
        live::history(generate, now_ms)?.into_iter().for_each(|(entry, forged)| keep(entry, forged));
    }
    let events = store.len();
    Ok((store, Loaded { events, skipped, ruled_out: offered - events }))
}
