//! Made-up traffic, signed for real with throw-away keys: settings and a seed in, events out.
//!
//! Event `k` of a seed is a pure function of the settings and `k`: who writes it, what, when, what it answers, and
//! whether it is late, from the future or forged. It is due at `base_ms + k / rate`. Relays with one seed therefore
//! carry one stream, wherever and whenever they were started, and [`Generate::copies`] says how much of it each has.
//! Nothing here reads a clock or waits; `live` does.

mod compose;
mod keys;
mod plan;
mod random;
mod words;

use std::io::Write;
use std::time::Duration;

use event::{Event, EventId, PublicKey, id};

use self::compose::{Answered, Draft, compose};
use self::keys::{Keys, Signer};
use self::plan::{Plan, plan};
use self::random::Random;
use crate::error::{Error, ErrorKind, Result};

/// What traffic to make up. Shares are of all events, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Decides everything. Default 1.
    pub seed: u64,
    /// Events a second of the whole stream, over all relays of the seed; 0 = no live events. Default 20.
    pub rate: f64,
    /// Number of authors, active by Zipf's law. Default 1,000.
    pub authors: u64,
    /// Number of relays that share the stream. Default 1.
    pub relays: u32,
    /// Which of them this one is, from 0. Default 0.
    pub relay: u32,
    /// Share of the events of the other relays that this one delivers as well. Default 0.5.
    pub copies: f64,
    /// Share of events dated two minutes to three days back. Default 0.02.
    pub late: f64,
    /// Share of events dated a day to a year ahead. Default 0.002.
    pub future: f64,
    /// Share of forged events: half with a wrong signature, half with an id that is not theirs. Default 0.01.
    pub forged: f64,
    /// When event 0 is due, milliseconds since 1970. Default 2026-01-01; a fixed date lets relays that were started
    /// apart carry the same events.
    pub base_ms: i64,
    /// Events that are stored when the relay starts. Default 0.
    pub history: u64,
    /// The time before the start over which they are spread. Default one hour.
    pub history_span: Duration,
}

impl Default for Generate {
    fn default() -> Self {
        Self {
            seed: 1,
            rate: 20.0,
            authors: 1_000,
            relays: 1,
            relay: 0,
            copies: 0.5,
            late: 0.02,
            future: 0.002,
            forged: 0.01,
            base_ms: 1_767_225_600_000,
            history: 0,
            history_span: Duration::from_secs(3_600),
        }
    }
}

impl Generate {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// `Config`, naming the setting.
    pub fn check(&self) -> Result<()> {
        let config = |message: String| Err(Error::new(ErrorKind::Config, message));
        if !(0.0..=1e6).contains(&self.rate) {
            return config(format!("rate {} is not between 0 and 1,000,000 events a second", self.rate));
        }
        for (name, share) in
            [("copies", self.copies), ("late", self.late), ("future", self.future), ("forged", self.forged)]
        {
            if !(0.0..=1.0).contains(&share) {
                return config(format!("share `{name}` is {share}, not between 0 and 1"));
            }
        }
        if self.late + self.future + self.forged > 1.0 {
            return config("shares `late`, `future` and `forged` are more than 1 together".to_owned());
        }
        if self.authors == 0 {
            return config("there must be at least one author".to_owned());
        }
        if self.relay >= self.relays {
            return config(format!("relay {} is not one of {} relays, counted from 0", self.relay, self.relays));
        }
        if self.history > 0 && self.history_span.is_zero() {
            return config("history needs a span longer than zero".to_owned());
        }
        Ok(())
    }

    /// The stream that makes up the stored history: its own seed and rate, on the same base, so that relays of one
    /// seed share their history too.
    pub(crate) fn of_history(&self) -> Self {
        let rate = self.history as f64 / self.history_span.as_secs_f64();
        Self { seed: self.seed ^ 0x6869_7374_6F72_7921, rate, ..self.clone() }
    }
}

/// What is wrong with a generated event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing.
    None,
    /// Dated two minutes to three days before it is delivered; valid.
    Late,
    /// Dated a day to a year after it is delivered; valid.
    Future,
    /// Its signature is not of its author.
    BadSignature,
    /// Its content was changed after it was signed, so that its id is not its hash.
    WrongId,
}

impl Fault {
    /// Whether verification must refuse the event.
    #[must_use]
    pub const fn forged(self) -> bool {
        matches!(self, Self::BadSignature | Self::WrongId)
    }
}

/// One event of the stream.
#[derive(Clone, Debug)]
pub struct GeneratedEvent {
    /// Its number in the stream of its seed.
    pub index: u64,
    /// When it is due, milliseconds since 1970; not the same as its `created_at`.
    pub at_ms: i64,
    /// What is wrong with it.
    pub fault: Fault,
    /// Its fields.
    pub event: Event,
    /// The event as it is sent.
    pub json: String,
}

/// Makes the events of one seed, in any order.
pub struct Generator {
    settings: Generate,
    keys: Keys,
}

impl Generator {
    /// A generator for `settings`.
    ///
    /// # Errors
    /// As [`Generate::check`].
    pub fn try_new(settings: Generate) -> Result<Self> {
        settings.check()?;
        let keys = Keys::new(settings.seed);
        Ok(Self { settings, keys })
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Generate {
        &self.settings
    }

    /// When event `index` is due, milliseconds since 1970.
    #[must_use]
    pub fn at_ms(&self, index: u64) -> i64 {
        let elapsed = if self.settings.rate > 0.0 { index as f64 * 1_000.0 / self.settings.rate } else { 0.0 };
        self.settings.base_ms.saturating_add(random::whole(elapsed).cast_signed())
    }

    /// The first event that is not due before `now_ms`; 0 when the rate is 0.
    #[must_use]
    pub fn index_at(&self, now_ms: i64) -> u64 {
        let elapsed = now_ms.saturating_sub(self.settings.base_ms).max(0);
        let mut index = random::whole(elapsed as f64 * self.settings.rate / 1_000.0);
        // The division may have been rounded either way.
        while index > 0 && self.at_ms(index - 1) >= now_ms {
            index -= 1;
        }
        while self.settings.rate > 0.0 && self.at_ms(index) < now_ms {
            index += 1;
        }
        index
    }

    /// Whether this relay of the seed carries event `index`: every event has one home, others carry copies.
    #[must_use]
    pub fn delivers(&self, index: u64) -> bool {
        let home = Random::of(self.settings.seed, index, 11).below(u64::from(self.settings.relays));
        let me = u64::from(self.settings.relay);
        home == me || Random::of(self.settings.seed, index, 1_000 + me).chance(self.settings.copies)
    }

    /// Event `index`.
    pub fn event(&mut self, index: u64) -> GeneratedEvent {
        let plan = plan(&self.settings, index);
        let mut event = self.genuine(&plan);
        match plan.fault {
            Fault::BadSignature => event.sig[63] ^= 1,
            Fault::WrongId => event.content.push('!'),
            Fault::None | Fault::Late | Fault::Future => {}
        }
        GeneratedEvent { index, at_ms: self.at_ms(index), fault: plan.fault, json: event.to_json(), event }
    }

    /// The events from `index` on that this relay carries, without end.
    pub fn starting_at(mut self, index: u64) -> impl Iterator<Item = GeneratedEvent> + Send {
        (index..).filter_map(move |index| if self.delivers(index) { Some(self.event(index)) } else { None })
    }

    fn genuine(&mut self, plan: &Plan) -> Event {
        let draft = compose(self, plan);
        self.sign(draft)
    }

    fn sign(&mut self, draft: Draft) -> Event {
        let Draft { signer, created_at, kind, tags, content } = draft;
        self.keys.get(signer).sign(created_at, kind, tags, content)
    }

    fn public_key(&mut self, signer: Signer) -> PublicKey {
        self.keys.get(signer).public_key()
    }

    /// What an answer to event `index` has to know; signed only if it is quoted whole.
    fn answered(&mut self, index: u64, quoted: bool) -> Answered {
        let plan = plan(&self.settings, index);
        let draft = compose(self, &plan);
        let (author, kind) = (self.public_key(draft.signer), draft.kind);
        if quoted {
            let event = self.sign(draft);
            return Answered { id: event.id, author, kind, json: Some(event.to_json()) };
        }
        let id = EventId::of(&id::canonical(&author, draft.created_at, kind, &draft.tags, &draft.content));
        Answered { id, author, kind, json: None }
    }
}

/// The stream of `settings` from its first event on, without end and without waiting.
///
/// # Errors
/// As [`Generate::check`].
pub fn generate(settings: Generate) -> Result<impl Iterator<Item = GeneratedEvent> + Send> {
    Ok(Generator::try_new(settings)?.starting_at(0))
}

/// Writes the first `count` events of `settings` to `out`, one a line.
///
/// # Errors
/// `Config` as [`Generate::check`]; `Unavailable` when `out` takes no more.
pub fn write_jsonl(settings: Generate, count: usize, out: &mut impl Write) -> Result<()> {
    for generated in generate(settings)?.take(count) {
        writeln!(out, "{}", generated.json)
            .map_err(|e| Error::new(ErrorKind::Unavailable, "could not write generated events").with_source(e))?;
    }
    Ok(())
}

/// An event of any shape, rightly signed by author `author`.
#[cfg(test)]
pub(crate) fn signed(author: u64, kind: u16, created_at: i64, tags: &[&[&str]], content: &str) -> Event {
    let mut generator = Generator::try_new(Generate::default()).expect("the default makes sense");
    let tags = tags.iter().map(|tag| tag.iter().map(ToString::to_string).collect()).collect();
    generator.sign(Draft { signer: Signer::Author(author), created_at, kind, tags, content: content.to_owned() })
}

#[cfg(test)]
mod tests;
