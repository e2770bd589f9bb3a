//! `tidegate relay`: a NIP-01 relay for tests, demos and load; options to `relay::Settings`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ::relay::{Faults, Generate, Server, Settings};
use event::{Clock, Span};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::progress::note;

/// Runs a Nostr relay that serves files or made-up live traffic, and misbehaves on demand.
///
/// The ws:// address is printed on standard error once it listens.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate relay --events events.jsonl.gz
  tidegate relay --generate --rate 500 --forged 0.05 --seed 7
  tidegate relay --events events.jsonl --drop-after 1000 --drops-max 3")]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7777")]
    listen: SocketAddr,

    /// Events to serve as JSON lines, plain, gzip or zstd; repeatable
    #[arg(long, value_name = "FILE", num_args = 1..)]
    events: Vec<PathBuf>,

    /// Apply the rules of replaceable, ephemeral, deleted and expired events; without it every event is served as it
    /// stands, like an archive
    #[arg(long)]
    nip01: bool,

    /// Take events only from clients that have said who they are (NIP-42)
    #[arg(long)]
    auth_to_publish: bool,

    /// Stored events that a filter without a limit gets; 0 = all
    #[arg(long, value_name = "N", default_value_t = 500)]
    default_limit: usize,

    /// Stored events that a filter gets at most; 0 = no cap
    #[arg(long, value_name = "N", default_value_t = 500)]
    max_limit: usize,

    #[command(flatten, next_help_heading = "Made-up traffic")]
    generate: GenerateArgs,

    #[command(flatten, next_help_heading = "Misbehaviour")]
    faults: FaultArgs,
}

/// What to make up.
#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// Make up live events, signed for real with throw-away keys
    #[arg(long)]
    generate: bool,

    /// Decides everything that is made up; relays with one seed carry one stream
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    rate: f64,

    /// Number of authors, active by Zipf's law
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    authors: u64,

    /// How many relays share the stream of the seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    relays: u32,

    /// Which of those relays this one is, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    number: u32,

    /// Share of the other relays' events that this one sends as well
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    copies: f64,

    /// Share of events dated two minutes to three days back
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    late: f64,

    /// Share of events dated a day to a year ahead
    #[arg(long, value_name = "SHARE", default_value_t = 0.002)]
    future: f64,

    /// Share of events with a wrong signature or id
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    forged: f64,

    /// Events that are stored when the relay starts
    #[arg(long, value_name = "N", default_value_t = 0)]
    history: u64,

    /// The time before the start over which the history is spread
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = Span::parse)]
    history_span: Span,
}

impl GenerateArgs {
    fn settings(&self) -> Option<Generate> {
        (self.generate || self.history > 0).then(|| Generate {
            seed: self.seed,
            rate: self.rate,
            authors: self.authors,
            relays: self.relays,
            relay: self.number,
            copies: self.copies,
            late: self.late,
            future: self.future,
            forged: self.forged,
            history: self.history,
            history_span: self.history_span.duration(),
            ..Generate::default()
        })
    }
}

/// What to do wrong.
#[derive(Debug, clap::Args)]
struct FaultArgs {
    /// Close the first N connections before the handshake
    #[arg(long, value_name = "N", default_value_t = 0)]
    refuse: u64,

    /// Drop the connection after N frames
    #[arg(long, value_name = "N")]
    drop_after: Option<u64>,

    /// Drop the connection after this time
    #[arg(long, value_name = "DURATION", value_parser = Span::parse)]
    drop_every: Option<Span>,

    /// Stop dropping after N drops
    #[arg(long, value_name = "N")]
    drops_max: Option<u64>,

    /// Fall silent after N frames, the socket still open
    #[arg(long, value_name = "N")]
    stall_after: Option<u64>,

    /// Send a junk frame after every N frames
    #[arg(long, value_name = "N")]
    garbage_every: Option<u64>,

    /// Send one frame of N bytes first
    #[arg(long, value_name = "N")]
    huge_frame: Option<usize>,

    /// Never send EOSE
    #[arg(long)]
    no_eose: bool,

    /// Wait this long before each EOSE
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = Span::parse)]
    eose_delay: Span,

    /// End each subscription with CLOSED after its EOSE
    #[arg(long)]
    closed_after_eose: bool,

    /// Send a forged copy before every N-th event
    #[arg(long, value_name = "N")]
    forge_every: Option<u64>,
}

impl FaultArgs {
    fn settings(&self) -> Faults {
        Faults {
            refuse: self.refuse,
            drop_after: self.drop_after,
            drop_every: self.drop_every.map(Span::duration),
            drops_max: self.drops_max,
            stall_after: self.stall_after,
            garbage_every: self.garbage_every,
            huge_frame_bytes: self.huge_frame,
            no_eose: self.no_eose,
            eose_delay: self.eose_delay.duration(),
            closed_after_eose: self.closed_after_eose,
            forge_every: self.forge_every,
        }
    }
}

/// Serves until told to stop.
pub(crate) async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    let settings = Settings {
        listen: args.listen,
        generate: args.generate.settings(),
        faults: args.faults.settings(),
        events: args.events,
        nip01: args.nip01,
        auth_to_publish: args.auth_to_publish,
        default_limit: args.default_limit,
        max_limit: args.max_limit,
        ..Settings::default()
    };
    if settings.events.is_empty() && settings.generate.is_none() {
        note("nothing to serve yet: --events names files, --generate makes up traffic; clients may publish");
    }
    let server = Server::bind(settings, Clock::system()).await?;
    note(&format!("listening on ws://{}", server.local_addr()));
    server.serve(shutdown).await?;
    Ok(())
}
