//! Signals: the first SIGINT or SIGTERM asks for a clean drain, the second ends the process at once with 130.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Exit code after the second signal: what a shell shows for SIGINT.
const INTERRUPTED: i32 = 130;

/// Watches the signals for as long as it lives.
pub(crate) struct Shutdown {
    token: CancellationToken,
    _watch: JoinSet<()>,
}

impl Shutdown {
    /// Cancelled by the first signal.
    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

/// Starts to watch the signals.
pub(crate) fn on_signals() -> io::Result<Shutdown> {
    let signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let token = CancellationToken::new();
    let mut watch = JoinSet::new();
    watch.spawn(drain_then_exit(signals, token.clone()));
    Ok(Shutdown { token, _watch: watch })
}

async fn drain_then_exit(mut signals: [Signal; 2], token: CancellationToken) {
    any(&mut signals).await;
    token.cancel();
    crate::progress::note("stopping: what is under way is being finished; once more to stop at once");
    any(&mut signals).await;
    #[expect(
        clippy::disallowed_methods,
        reason = "a task that does not yield must not keep the second Ctrl-C waiting"
    )]
    std::process::exit(INTERRUPTED);
}

async fn any(signals: &mut [Signal; 2]) {
    let [interrupt, terminate] = signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
