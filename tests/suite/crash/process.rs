//! A running `tidegate stream`: what it says, as it says it, and the signals that it gets.
//!
//! Only this very process is ever signalled, and it is ended when it goes out of scope.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::signal;

/// A record of `--progress json`.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    /// Commits of the job, of this and earlier runs.
    pub(crate) commits: u64,
    /// How long the epoch's commit took, milliseconds; zero without one.
    pub(crate) commit_ms: f64,
    /// Identity of the job in the log.
    pub(crate) id: String,
}

/// What a process has said on standard error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) told: Vec<Told>,
    /// Everything but progress.
    pub(crate) lines: Vec<String>,
    closed: bool,
}

impl Heard {
    pub(crate) fn commits(&self) -> u64 {
        self.told.last().map_or(0, |told| told.commits)
    }

    pub(crate) fn said(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }

    /// Lines with these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.lines.iter().filter(|line| line.contains(words)).count()
    }

    fn hear(&mut self, line: String) {
        let record = serde_json::from_str::<Value>(&line).ok().filter(|record| record["durationMs"].is_object());
        let Some(record) = record else { return self.lines.push(line) };
        self.told.push(Told {
            at: Instant::now(),
            commits: record["sink"]["commits"].as_u64().expect("commits"),
            commit_ms: record["durationMs"]["commit"].as_f64().expect("milliseconds"),
            id: record["id"].as_str().expect("an id").to_owned(),
        });
    }
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) started: Instant,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("tidegate starts");
        let stderr = child.stderr.take().expect("piped");
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let shared = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lock(&shared.0).hear(line);
                shared.1.notify_all();
            }
            lock(&shared.0).closed = true;
            shared.1.notify_all();
        });
        Self { child, started, heard }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn heard(&self) -> Heard {
        lock(&self.heard.0).clone()
    }

    /// Waits until it has said something; what it has said by then. Ends early when it has ended.
    pub(crate) fn hears(&self, timeout: Duration, enough: impl Fn(&Heard) -> bool) -> Result<Heard, Heard> {
        let waiting = |heard: &mut Heard| !enough(heard) && !heard.closed;
        let waited = self.heard.1.wait_timeout_while(lock(&self.heard.0), timeout, waiting);
        let heard = waited.unwrap_or_else(PoisonError::into_inner).0.clone();
        if enough(&heard) { Ok(heard) } else { Err(heard) }
    }

    /// As [`Process::hears`], and demands it.
    pub(crate) fn must_hear(&self, what: &str, timeout: Duration, enough: impl Fn(&Heard) -> bool) -> Heard {
        self.hears(timeout, enough).unwrap_or_else(|heard| {
            panic!("no {what} in {timeout:?} from process {}:\n{}", self.id(), heard.lines.join("\n"))
        })
    }

    /// `kill -9`, and what it had said.
    pub(crate) fn kill(mut self) -> Heard {
        self.child.kill().expect("the process is ours to kill");
        self.child.wait().expect("it is waited for");
        self.last_words()
    }

    /// Asks it to stop, as an operator would.
    pub(crate) fn terminate(&self) {
        signal("TERM", self.id());
    }

    pub(crate) fn alive(&mut self) -> bool {
        self.child.try_wait().expect("it is a child of ours").is_none()
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self, timeout: Duration) -> (ExitStatus, Heard) {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child of ours") {
                return (status, self.last_words());
            }
            let lines = || self.heard().lines.join("\n");
            assert!(Instant::now() < deadline, "process {} did not end in {timeout:?}:\n{}", self.id(), lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end with this code.
    pub(crate) fn ends_with(self, code: i32, timeout: Duration) -> Heard {
        let (status, heard) = self.ends(timeout);
        assert_eq!(status.code(), Some(code), "{status}\n{}", heard.lines.join("\n"));
        heard
    }

    fn last_words(&self) -> Heard {
        let waited =
            self.heard.1.wait_timeout_while(lock(&self.heard.0), Duration::from_secs(5), |heard| !heard.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
