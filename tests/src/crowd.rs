//! A thousand relays on loopback and one `tidegate ingest nostr` that follows them all: what it costs, by the operating
//! system's own figures. Every event is held by several relays, so that most frames are copies.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::scripted_relay::{Plot, ScriptedRelay};
use crate::{signal, signed};

/// How long nothing happens while idling is measured: every relay is pinged once.
const IDLE: Duration = Duration::from_secs(40);
/// Between two live events.
const TICK: Duration = Duration::from_millis(5);
/// By then a phase has come to its end.
const PHASE_MAX: Duration = Duration::from_secs(600);
/// Linux counts the CPU time of a process in these.
const TICKS_A_SECOND: f64 = 100.0;

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Relays.
    pub relays: usize,
    /// Events that are stored when the run begins; as many come live again.
    pub events: usize,
    /// Relays that hold each event.
    pub copies: usize,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
struct Used {
    at: Instant,
    cpu_secs: f64,
    resident_mib: f64,
}

impl Used {
    fn by(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name in brackets may hold blanks; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("no CPU time");
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident memory")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        let cpu_secs = (ticks(11)? + ticks(12)?) / TICKS_A_SECOND;
        Ok(Self { at: Instant::now(), cpu_secs, resident_mib: kib / 1_024.0 })
    }
}

impl Crowd {
    /// Runs `binary`, with these further options, against the crowd; rows of a Markdown table, and what the process said in the end.
    ///
    /// # Errors
    /// When the process ends before its time, or a phase does not end.
    pub async fn measure(self, binary: &Path, options: &[&str]) -> Result<String> {
        let events = signed::events(1, 2 * self.events);
        let (stored, live) = events.split_at(self.events);
        let relays = self.start(stored).await;
        let dir = TempDir::new()?;
        let urls: Vec<String> = relays.iter().map(ScriptedRelay::url).collect();
        let mut child = Command::new(binary)
            .args(["ingest", "nostr", "--log-level", "error", "--relay", &urls.join(","), "--data-dir"])
            .arg(dir.path())
            .args(options)
            .stderr(Stdio::piped())
            .spawn()?;
        let rows = self.follow(&mut child, &relays, live).await;
        let told = end(&mut child);
        Ok(format!("{}\n{}", rows?, told?))
    }

    async fn start(self, stored: &[String]) -> Vec<ScriptedRelay> {
        let mut held = vec![Vec::new(); self.relays];
        for (number, event) in stored.iter().enumerate() {
            self.holders(number).for_each(|relay| held[relay].push(event.clone()));
        }
        let mut relays = Vec::with_capacity(self.relays);
        for events in &held {
            relays.push(ScriptedRelay::start(Plot::of(events)).await);
        }
        relays
    }

    /// Relays that hold an event: neighbours would always be the same company, so they are spread.
    fn holders(self, number: usize) -> impl Iterator<Item = usize> {
        (0..self.copies).map(move |copy| (number * 7 + copy * (self.relays / self.copies)) % self.relays)
    }

    async fn follow(self, child: &mut Child, relays: &[ScriptedRelay], live: &[String]) -> Result<String> {
        let mut rows = String::new();
        let mut last = Used { at: Instant::now(), cpu_secs: 0.0, resident_mib: 0.0 };
        let frames = self.events * self.copies;
        wait(child, || relays.iter().all(|relay| relay.live_requests() > 0) && sent(relays) >= frames).await?;
        row(&mut rows, child, "connect, and fetch what is stored", frames, &mut last)?;
        sleep(IDLE).await;
        row(&mut rows, child, "idle", 0, &mut last)?;
        for (number, event) in live.iter().enumerate() {
            self.holders(number).for_each(|relay| relays[relay].publish(event));
            sleep(TICK).await;
        }
        wait(child, || sent(relays) >= 2 * frames).await?;
        row(&mut rows, child, "live", frames, &mut last)?;
        Ok(rows)
    }
}

fn sent(relays: &[ScriptedRelay]) -> usize {
    relays.iter().map(|relay| relay.served().len()).sum()
}

async fn wait(child: &mut Child, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PHASE_MAX;
    while !done() {
        ensure!(child.try_wait()?.is_none(), "the process has ended");
        ensure!(Instant::now() < deadline, "the phase did not end within {PHASE_MAX:?}");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn row(rows: &mut String, child: &Child, phase: &str, frames: usize, last: &mut Used) -> Result<()> {
    let now = Used::by(child.id())?;
    let (wall, cpu) = ((now.at - last.at).as_secs_f64(), now.cpu_secs - last.cpu_secs);
    writeln!(rows, "| {phase} | {frames} | {wall:.1} | {cpu:.2} | {:.0} |", now.resident_mib)?;
    *last = now;
    Ok(())
}

/// Asks the process to stop; its last line.
fn end(child: &mut Child) -> Result<String> {
    signal("TERM", child.id());
    let stderr = child.stderr.take().context("it is piped")?;
    let last = BufReader::new(stderr).lines().map_while(Result::ok).last();
    child.wait()?;
    last.context("it said nothing")
}
