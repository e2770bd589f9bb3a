//! What finds no room in memory, on disk: first in, first out, in files without a name that are gone with the process.
//!
//! Nothing here is the only proof of anything. A share in a relay's answer stays in memory beside each arrival, and what an
//! answer proves is written with the last of its events or after it: what a killed process had here is asked for again.
//! So nothing is synced, and nothing read back by another run.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use event::{Reason, Rejection};

use crate::coverage::Page;
use crate::lane::Lane;
use crate::parcel::{Arrival, Held, Phase, Source};
use crate::verifier::Input;

/// A file is given back to the disk once it has been read: so many bytes are the most that wait for that.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FILE_BYTES_MIN: u64 = 4 << 10;
/// What an arrival is counted for beside its bytes: its place in memory, so that a flood of the smallest is bounded too.
const OVERHEAD: u64 = 64;
/// Sources of what is spilled; the place of an arrival's own stands in one byte with its phase.
const SOURCES: [Source; 3] = [Source::Nostr, Source::OpenSea, Source::File];
/// Length of the bytes, of the detail, received time, source and phase, reason.
const HEAD: usize = 4 + 2 + 8 + 1 + 1;

/// Arrivals that wait on disk. Everything here blocks.
#[derive(Debug)]
pub(crate) struct Spill {
    dir: Option<PathBuf>,
    bytes_max: u64,
    used: u64,
    files: VecDeque<Part>,
    kept: VecDeque<Kept>,
}

/// A file that is written to its end, and then read.
#[derive(Debug)]
struct Part {
    file: File,
    written: u64,
    read: u64,
    /// What it is counted for.
    cost: u64,
}

/// What stays in memory of an arrival.
#[derive(Debug)]
struct Kept {
    page: Option<Page>,
    lane: Option<Arc<Lane>>,
    cost: u32,
}

/// An arrival on its way back.
#[derive(Debug)]
pub(crate) struct Popped {
    pub(crate) lane: Option<Arc<Lane>>,
    /// What it was counted for.
    pub(crate) cost: u64,
    /// The arrival; when the disk did not give it back, it is lost, and what its relay's answer would have proven is not
    /// proven.
    pub(crate) input: io::Result<Input>,
}

impl Spill {
    /// At most `bytes_max` in files below `dir`; without one, or of size 0, it takes nothing.
    pub(crate) fn new(dir: Option<PathBuf>, bytes_max: u64) -> Self {
        Self { dir, bytes_max, used: 0, files: VecDeque::new(), kept: VecDeque::new() }
    }

    /// What an arrival is counted for.
    pub(crate) fn cost(input: &Input) -> u64 {
        OVERHEAD
            + HEAD as u64
            + (input.arrival.raw.len() + input.refused.as_ref().map_or(0, |no| no.detail.len())) as u64
    }

    /// Bytes on disk, what has been read and not given back yet among them.
    pub(crate) const fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes an arrival, but for what is kept in memory; `false` when it is full.
    ///
    /// # Errors
    /// When the disk does not take it; what was taken before is still there.
    pub(crate) fn push(&mut self, input: &mut Input) -> io::Result<bool> {
        let cost = Self::cost(input);
        if self.used + cost > self.bytes_max {
            return Ok(false);
        }
        let Some(dir) = &self.dir else { return Ok(false) };
        let bytes = encode(input);
        let file_max = (self.bytes_max / 16).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX);
        if self.files.back().is_none_or(|last| last.written >= file_max) {
            std::fs::create_dir_all(dir)?;
            self.files.push_back(Part { file: tempfile::tempfile_in(dir)?, written: 0, read: 0, cost: 0 });
        }
        let Some(last) = self.files.back_mut() else { return Ok(false) };
        // Where this fails in the middle, the next one is written over it.
        last.file.write_all_at(&bytes, last.written)?;
        last.written += bytes.len() as u64;
        last.cost += cost;
        self.used += cost;
        let held = std::mem::take(&mut input.arrival.held);
        self.kept.push_back(Kept { page: held.page, lane: held.lane, cost: u32::try_from(cost).unwrap_or(u32::MAX) });
        Ok(true)
    }

    /// Gives back the arrival that has been here longest.
    pub(crate) fn pop(&mut self) -> Option<Popped> {
        let kept = self.kept.pop_front()?;
        while self.files.front().is_some_and(|first| first.read >= first.written) {
            self.forget_first();
        }
        let read = match self.files.front_mut() {
            Some(first) => first.next(),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        };
        let Kept { page, lane, cost } = kept;
        if let (Err(_), Some(page)) = (&read, &page) {
            page.tear();
        }
        if self.kept.is_empty() {
            self.files.clear();
            self.used = 0;
        }
        let input = read.map(|(mut arrival, refused)| {
            if let Some(lane) = &lane {
                arrival.relay = Arc::clone(lane.relay());
            }
            arrival.held = Held { page, lane: lane.clone(), ..Held::default() };
            Input { arrival, refused, cut: None }
        });
        Some(Popped { lane, cost: cost.into(), input })
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.files.pop_front() {
            self.used -= first.cost;
        }
    }
}

impl Drop for Spill {
    /// What was not brought back is lost, and proves nothing.
    fn drop(&mut self) {
        self.kept.iter().filter_map(|kept| kept.page.as_ref()).for_each(Page::tear);
    }
}

impl Part {
    fn next(&mut self) -> io::Result<(Arrival, Option<Rejection>)> {
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, self.read)?;
        let [a, b, c, d, e, f, at @ .., phase, reason] = head;
        let (raw_len, detail_len) =
            (u32::from_be_bytes([a, b, c, d]) as usize, usize::from(u16::from_be_bytes([e, f])));
        let mut body = vec![0; raw_len + detail_len];
        self.file.read_exact_at(&mut body, self.read + HEAD as u64)?;
        self.read += (HEAD + body.len()) as u64;
        let body = Bytes::from(body);
        let detail = String::from_utf8_lossy(&body[raw_len..]);
        let reason = usize::from(reason).checked_sub(1).and_then(|at| Reason::ALL.get(at));
        let refused = reason.map(|reason| Rejection::new(*reason, detail));
        let arrival = Arrival {
            raw: body.slice(..raw_len),
            relay: "".into(),
            received_at_ms: i64::from_be_bytes(at),
            source: SOURCES.get(usize::from(phase >> 1)).copied().unwrap_or(Source::Nostr),
            phase: if phase & 1 == 0 { Phase::Backfill } else { Phase::Live },
            held: Held::default(),
        };
        Ok((arrival, refused))
    }
}

fn encode(input: &Input) -> Vec<u8> {
    // Only what comes from an intake topic is cut, and that does not come this way.
    let Input { arrival, refused, cut: _ } = input;
    let detail = refused.as_ref().map_or("", |no| no.detail.as_str());
    let mut bytes = Vec::with_capacity(HEAD + arrival.raw.len() + detail.len());
    bytes.extend(u32::try_from(arrival.raw.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(u16::try_from(detail.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(arrival.received_at_ms.to_be_bytes());
    let source = SOURCES.iter().position(|one| *one == arrival.source).and_then(|at| u8::try_from(at << 1).ok());
    bytes.push(u8::from(arrival.phase == Phase::Live) | source.unwrap_or(0));
    let place =
        |reason: Reason| Reason::ALL.iter().position(|one| *one == reason).and_then(|at| u8::try_from(at + 1).ok());
    bytes.push(refused.as_ref().and_then(|no| place(no.reason)).unwrap_or(0));
    bytes.extend_from_slice(&arrival.raw);
    bytes.extend_from_slice(detail.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::coverage::{Band, Ledger, Line, Proof};
    use crate::metrics::Counters;

    fn lane() -> Arc<Lane> {
        let counters = Counters::default().relay(&"wss://relay.example.org".into());
        Arc::new(Lane::new(counters, 1_024, 1 << 20))
    }

    fn input(lane: &Arc<Lane>, number: i64, len: usize, refused: bool) -> Input {
        let raw: Vec<u8> = (0..len).map(|at| u8::try_from((at + len) % 251).expect("below 251")).collect();
        let arrival = Arrival {
            raw: raw.into(),
            relay: Arc::clone(lane.relay()),
            received_at_ms: number,
            source: SOURCES[usize::try_from(number.rem_euclid(3)).expect("below three")],
            phase: if number % 2 == 0 { Phase::Live } else { Phase::Backfill },
            held: Held { lane: Some(Arc::clone(lane)), ..Held::default() },
        };
        let refused = refused.then(|| Rejection::new(Reason::FrameUnknown, format!("label {number}")));
        Input { arrival, refused, cut: None }
    }

    fn same(one: &Input, other: &Input) -> bool {
        let of = |input: &Input| {
            let Arrival { raw, relay, received_at_ms, source, phase, .. } = &input.arrival;
            (raw.clone(), Arc::clone(relay), *received_at_ms, *source, *phase, input.refused.clone())
        };
        of(one) == of(other)
    }

    fn names(dir: &Path) -> usize {
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    proptest! {
        /// Whatever is pushed and popped in between: what comes back is what a queue in memory gives, within the bound.
        #[test]
        fn it_is_a_queue_within_its_bound(
            steps in prop::collection::vec((any::<bool>(), 0_usize..9_000, any::<bool>()), 1..300),
            bytes_max in 10_000_u64..200_000,
        ) {
            let (dir, lane) = (TempDir::new().expect("a directory"), lane());
            let mut spill = Spill::new(Some(dir.path().join("spill")), bytes_max);
            let (mut model, mut number) = (VecDeque::new(), 0);
            for (push, len, refused) in steps {
                if push {
                    number += 1;
                    let mut one = input(&lane, number, len, refused);
                    let (copy, before) = (input(&lane, number, len, refused), spill.used());
                    if spill.push(&mut one).expect("a disk") {
                        model.push_back(copy);
                    } else {
                        prop_assert!(before + Spill::cost(&copy) > bytes_max);
                    }
                } else {
                    let popped = spill.pop().map(|popped| popped.input.expect("read back"));
                    let wanted = model.pop_front();
                    prop_assert_eq!(popped.is_some(), wanted.is_some());
                    prop_assert!(popped.zip(wanted).is_none_or(|(popped, wanted)| same(&popped, &wanted)));
                }
                let held: u64 = model.iter().map(Spill::cost).sum();
                prop_assert!(held <= spill.used() && spill.used() <= bytes_max);
                prop_assert_eq!(spill.is_empty(), model.is_empty());
                prop_assert!(!model.is_empty() || spill.used() == 0, "what is empty takes no place");
            }
            prop_assert_eq!(names(&dir.path().join("spill")), 0, "no file has a name");
        }
    }

    #[test]
    fn without_a_place_or_a_size_it_takes_nothing() {
        let (dir, lane) = (TempDir::new().expect("a directory"), lane());
        for mut spill in [Spill::new(None, 1 << 20), Spill::new(Some(dir.path().to_owned()), 0)] {
            assert!(!spill.push(&mut input(&lane, 1, 10, false)).expect("no disk is asked"));
            assert!(spill.pop().is_none());
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "in the way").expect("a file");
        let mut spill = Spill::new(Some(file), 1 << 20);
        let mut one = input(&lane, 1, 10, false);
        spill.push(&mut one).expect_err("no directory");
        assert!(same(&one, &input(&lane, 1, 10, false)) && one.arrival.held.lane.is_some(), "it is given back whole");
        assert_eq!(spill.used(), 0);
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        BroughtBack,
        Cut,
        LeftBehind,
    }

    /// What an answer says of itself does not count once the disk has lost an event of it.
    #[test]
    fn what_the_disk_does_not_give_back_is_not_proven() {
        let (dir, lane) = (TempDir::new().expect("a directory"), lane());
        for fate in [Fate::BroughtBack, Fate::Cut, Fate::LeftBehind] {
            let ledger = Arc::new(Ledger::default());
            let line = Line { relay: Arc::clone(lane.relay()), kinds: "all".to_owned() };
            let page = Page::new(&ledger, &ledger.open(&line));
            let mut spill = Spill::new(Some(dir.path().to_owned()), 1 << 20);
            let mut one = input(&lane, 1, 1_000, false);
            one.arrival.held.page = Some(page.clone());
            assert!(spill.push(&mut one).expect("a disk"));
            drop(one);
            page.prove(vec![Band { from: 1, to: 9, proven_at: 10, proof: Proof::Paged }], Vec::new());
            assert!(ledger.bands(&line).as_slice().is_empty(), "an event of it is under way");
            if fate == Fate::Cut {
                spill.files[0].file.set_len(500).expect("cut");
            }
            if fate == Fate::LeftBehind {
                drop(spill);
            } else {
                let popped = spill.pop().expect("one");
                assert_eq!(popped.input.is_err(), fate == Fate::Cut);
            }
            assert_eq!(ledger.bands(&line).as_slice().is_empty(), fate != Fate::BroughtBack, "{fate:?}");
        }
    }
}
