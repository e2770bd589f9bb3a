//! What a relay holds of a band, by ids alone (NIP-77): lists them, looks each up among the known, and fetches the rest.
//!
//! The set that we bring to the comparison is empty, so that the relay names every id of the band, 32 bytes an event,
//! whatever it caps its pages at. This finds what pages cannot: more events of one second than a page holds, and what
//! a relay got late, or kept from its live subscription, among much that is here already.
//!
//! A relay that names less than it gives out is not believed: a small page of the band is asked for first, and each event
//! of it has to be among the ids.

use std::collections::HashSet;
use std::time::Duration;

use event::EventId;
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use tokio::time::Instant;

use crate::coverage::{Band, Page, Proof};
use crate::metrics::add;
use crate::relay::closed::Closed;
use crate::relay::message::{self, Filter};
use crate::relay::session::{End, Session, Step};
use crate::relay::stored::ROOM_WAIT;

/// Messages of one comparison that bring no id: with an empty set of ours nearly each brings some.
const BARREN_ROUNDS_MAX: u32 = 64;
/// Events of the page that tries whether all ids are named.
const SAMPLE_EVENTS: usize = 20;
/// Ids that are listed and not known, at most; beyond it the band is walked page by page.
const UNKNOWN_MAX: usize = 1_000_000;
/// Ids of one request.
const IDS_PER_REQUEST: usize = 100;
/// Requests for ids that are under way at once.
const REQUESTS_AT_ONCE: usize = 4;
/// How long a relay that may not know what a comparison is has for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long a refusal in words for people, which names no subscription, is waited out.
const NOTICE_GRACE: Duration = Duration::from_secs(2);

/// Whether a relay compares sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compares {
    #[default]
    Unknown,
    Yes,
    No,
}

/// A comparison under way, and then the requests for what it found.
pub(crate) struct List {
    from: i64,
    to: i64,
    asked_at: i64,
    /// The page that comes first, until its end.
    sampling: Option<String>,
    /// Ids of that page that were not named yet.
    sample: HashSet<EventId>,
    sub: String,
    set: Negentropy<'static, NegentropyStorageVector>,
    first: String,
    rounds: u32,
    barren: u32,
    /// Ids that are to be asked for; the second time what did not come the first time.
    unknown: Vec<EventId>,
    /// Ids that were asked for and did not come.
    awaited: HashSet<EventId>,
    requests: Vec<String>,
    again: bool,
    /// The comparison is through.
    listed: bool,
    /// Nothing more is asked for until there is room.
    held: bool,
    page: Page,
    /// Idle at this time unless something comes.
    idle: Instant,
    /// The next request waits for the relay's pace.
    ask_at: Option<Instant>,
}

impl List {
    /// Whether `sub` is one of its requests for events.
    pub(crate) fn is_request(&self, sub: &str) -> bool {
        self.sampling.as_deref() == Some(sub) || self.requests.iter().any(|request| request == sub)
    }

    /// Whether `sub` is the comparison itself.
    pub(crate) fn is(&self, sub: &str) -> bool {
        self.sub == sub
    }

    /// First and last second.
    pub(crate) const fn band(&self) -> (i64, i64) {
        (self.from, self.to)
    }

    /// When something is to be done unless something comes.
    pub(crate) fn wake(&self) -> Instant {
        self.ask_at.map_or(self.idle, |at| at.min(self.idle))
    }

    const fn is_one_second(&self) -> bool {
        self.from == self.to
    }
}

impl Session<'_> {
    fn list_idle(&self) -> Instant {
        Instant::now() + self.settings().idle_timeout
    }

    /// Begins to list the seconds from `from` to `to`, both inclusive.
    pub(crate) async fn open_list(&mut self, from: i64, to: i64) -> Step {
        let mut storage = NegentropyStorageVector::new();
        let opened = storage.seal().and_then(|()| Negentropy::owned(storage, 0));
        let opened = opened.and_then(|mut set| set.initiate().map(|first| (set, first)));
        let (set, first) = opened.map_err(|error| End::lost(format!("could not begin a comparison: {error}")))?;
        let (sampling, sub) = (self.fresh_sub("sample"), self.fresh_sub("list"));
        let limit = Some(SAMPLE_EVENTS);
        let text = message::req(&sampling, &Filter { kinds: self.kinds(), since: Some(from), until: Some(to), limit });
        self.list = Some(List {
            from,
            to,
            asked_at: self.now_secs(),
            sampling: Some(sampling),
            sample: HashSet::new(),
            sub,
            set,
            first: hex::encode(first),
            rounds: 0,
            barren: 0,
            unknown: Vec::new(),
            awaited: HashSet::new(),
            requests: Vec::new(),
            again: false,
            listed: false,
            held: false,
            page: self.relay.history.new_page(),
            idle: self.list_idle(),
            ask_at: None,
        });
        self.send_text(text).await
    }

    /// An event of a request has come; returns the answer for it to hold on to.
    pub(crate) fn saw_listed(&mut self, id: Option<EventId>) -> Option<Page> {
        let idle = self.list_idle();
        let list = self.list.as_mut()?;
        if list.sampling.is_some() {
            list.sample.extend(id.filter(|_| list.sample.len() < SAMPLE_EVENTS));
        } else if id.is_some_and(|id| list.awaited.remove(&id)) {
            list.idle = idle;
        }
        Some(list.page.clone())
    }

    /// A message of the comparison.
    pub(crate) async fn neg_msg(&mut self, sub: &str, hex: &str) -> Step {
        let idle = self.list_idle();
        let Some(list) = self.list.as_mut().filter(|list| list.sub == sub && list.sampling.is_none() && !list.listed)
        else {
            return Ok(());
        };
        (list.rounds, list.idle) = (list.rounds + 1, idle);
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let answer = match hex::decode(hex) {
            Ok(bytes) => list.set.reconcile_with_ids(&bytes, &mut have, &mut need).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.relay.compares = Compares::Yes;
        list.barren += u32::from(need.is_empty());
        let named: Vec<EventId> = need.into_iter().map(|id: Id| EventId(id.to_bytes())).collect();
        list.sample.retain(|id| !named.contains(id));
        let unknown = self.relay.shared.intake.unknown(named, list.page.clone()).await;
        list.unknown.extend(unknown?);
        if list.barren > BARREN_ROUNDS_MAX || list.unknown.len() > UNKNOWN_MAX {
            return self.list_failed("it is too long").await;
        }
        match answer {
            Ok(Some(next)) => {
                let text = message::neg_msg(sub, &hex::encode(next));
                self.send_text(text).await
            }
            Ok(None) if !list.sample.is_empty() => {
                let why = format!("it names {} fewer than it gives out", list.sample.len());
                self.neg_refused(&why).await
            }
            Ok(None) => {
                list.listed = true;
                let text = message::neg_close(sub);
                self.send_text(text).await?;
                self.fetch_listed().await
            }
            Err(why) => self.list_failed(&why).await,
        }
    }

    /// The relay does not compare, or not this.
    pub(crate) async fn neg_refused(&mut self, text: &str) -> Step {
        if Closed::of(text) == Closed::Auth {
            if let Some(list) = self.list.take() {
                let (from, to) = list.band();
                self.relay.history.list_again((from, to));
            }
            return self.page_refused(text).await;
        }
        // Too many results are no refusal to compare at all.
        let too_many = text.contains("too many") || text.contains("too big");
        if !too_many {
            self.relay.compares = Compares::No;
        }
        self.list_failed(text).await
    }

    /// A refusal may come as words for people, without saying what is refused.
    pub(crate) fn notice_while_listing(&mut self) {
        if let Some(list) = self.list.as_mut().filter(|list| list.sampling.is_none() && list.rounds == 0) {
            list.idle = list.idle.min(Instant::now() + NOTICE_GRACE);
        }
    }

    /// It is time for the next request, or nothing has come for too long.
    pub(crate) async fn tick_list(&mut self, now: Instant) -> Step {
        let Some(list) = &mut self.list else { return Ok(()) };
        if list.ask_at.take_if(|at| now >= *at).is_some() {
            return self.fetch_listed().await;
        }
        if list.rounds == 0 {
            return self.neg_refused("no answer").await;
        }
        if std::mem::take(&mut list.held) {
            return self.fetch_listed().await;
        }
        if list.listed {
            // The requests that are under way have ended for us; what did not come is asked for once more.
            let subs = std::mem::take(&mut list.requests);
            for sub in subs {
                self.send_text(message::close(&sub)).await?;
            }
            return self.fetch_listed().await;
        }
        self.list_failed("it has stopped in the middle").await
    }

    /// The band is walked instead; of a second that no page can hold, the gap is noted.
    async fn list_failed(&mut self, why: &str) -> Step {
        let Some(list) = self.list.take() else { return Ok(()) };
        tracing::debug!(relay = %self.relay.url, why, from = list.from, to = list.to, "the relay does not list this");
        let now = self.now_secs();
        if list.is_one_second() {
            add(&self.relay.shared.counters.gaps, 1);
            tracing::warn!(relay = %self.relay.url, second = list.from, "the relay may hold more events of this second than it gives out");
        }
        self.relay.history.list_failed(list.from, list.to, now);
        self.ask_page().await
    }

    /// A request for ids has come to its end.
    pub(crate) async fn list_request_ended(&mut self, sub: &str) -> Step {
        let text = message::close(sub);
        self.send_text(text).await?;
        let idle = self.list_idle();
        let kinds = self.kinds().map(<[u16]>::to_vec);
        let Some(list) = &mut self.list else { return Ok(()) };
        if list.sampling.take().is_some() {
            list.idle = idle.min(Instant::now() + FIRST_ANSWER);
            let (since, until) = (Some(list.from), Some(list.to));
            let filter = Filter { kinds: kinds.as_deref(), since, until, limit: None };
            let text = message::neg_open(&list.sub, &filter, &list.first);
            return self.send_text(text).await;
        }
        list.requests.retain(|request| request != sub);
        self.fetch_listed().await
    }

    /// Asks for listed events that are not known, some requests at once; at the end the band is proven.
    async fn fetch_listed(&mut self) -> Step {
        loop {
            let idle = self.list_idle();
            let Some(list) = &mut self.list else { return Ok(()) };
            if list.requests.len() >= REQUESTS_AT_ONCE {
                return Ok(());
            }
            if list.unknown.is_empty() {
                if !list.requests.is_empty() {
                    return Ok(());
                }
                if list.awaited.is_empty() || std::mem::replace(&mut list.again, true) {
                    return self.listed().await;
                }
                // A relay that gives fewer than it was asked for gives the rest when it is asked again.
                list.unknown = list.awaited.drain().collect();
            }
            if self.relay.shared.intake.is_strained() {
                (list.held, list.idle) = (true, Instant::now() + ROOM_WAIT);
                return Ok(());
            }
            if let Err(at) = self.relay.pace.take(Instant::now()) {
                (list.ask_at, list.idle) = (Some(at), list.idle.max(at + self.relay.shared.settings.idle_timeout));
                return Ok(());
            }
            let ids = list.unknown.split_off(list.unknown.len().saturating_sub(IDS_PER_REQUEST));
            list.idle = idle;
            let sub = self.fresh_sub("ids");
            let text = message::req_ids(&sub, &ids);
            if let Some(list) = &mut self.list {
                list.awaited.extend(ids);
                list.requests.push(sub);
            }
            self.send_text(text).await?;
        }
    }

    /// All that was listed is here, or was not to be had.
    async fn listed(&mut self) -> Step {
        let Some(list) = self.list.take() else { return Ok(()) };
        if !list.awaited.is_empty() {
            let count = list.awaited.len();
            tracing::warn!(relay = %self.relay.url, count, "the relay names events that it does not give out");
        }
        self.progress = true;
        let band = Band { from: list.from, to: list.to, proven_at: list.asked_at, proof: Proof::Reconciled };
        list.page.prove(vec![band], Vec::new());
        self.ask_page().await
    }
}
