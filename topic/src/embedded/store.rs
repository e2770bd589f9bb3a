//! The embedded log at rest: opening the data directory, one atomic batch at a time in, ranges of records out.
//!
//! Everything here blocks, and is called from blocking threads. fjall holds one keyspace per topic (record key →
//! record, see `codec`) and one for the books: topics, writer epochs, committed offsets. What is small (ends, epochs,
//! offsets) is in memory as well and is moved forward only after the batch is on disk, all of a batch at once: so
//! readers, who go by those ends, see a whole transaction or nothing of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};
use tokio::sync::watch;

use super::codec::{self, books};
use crate::{Error, ErrorKind, Record, Result, StoredRecord, TopicSpec};

/// Format of keys and values in the directory.
const FORMAT_VERSION: [u8; 1] = [1];
const BOOKS_KEYSPACE: &str = "books";
/// Before the names of topics, so that none of them is `books`.
const TOPIC_KEYSPACE_PREFIX: &str = "topic.";
/// Records are read in long runs: a block holds some seventy of them, not four.
const BLOCK_BYTES: u32 = 64 * 1024;

/// What is on disk, and the small part of it that is kept in memory too.
pub(super) struct Store {
    dir: PathBuf,
    db: Database,
    books: Keyspace,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Arc<Topic>>,
    /// By topic: every partition's.
    partitions: HashMap<String, Vec<Partition>>,
    /// By group and topic.
    committed: HashMap<(String, String), BTreeMap<i32, i64>>,
    epochs: HashMap<String, u64>,
}

/// A topic's place on disk, and the bell that rings when something was added to it.
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: i32,
    keyspace: Keyspace,
    changed: watch::Sender<()>,
}

#[derive(Clone, Copy)]
struct Partition {
    end: i64,
    time_max: i64,
}

/// A record with its place.
pub(super) struct Placed {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: i32,
    pub(super) timestamp_ms: i64,
    pub(super) record: Record,
}

/// An offset to be committed.
pub(super) struct GroupOffset {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What is to become visible together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Placed>,
    pub(super) offsets: Vec<GroupOffset>,
    /// Transactional id and the epoch that its writer was given.
    pub(super) fence: Option<(String, u64)>,
}

impl Store {
    /// Opens or creates the log in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let db = match Database::builder(dir).open() {
            Err(fjall::Error::Io(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                clear_half_created(dir)?;
                Database::builder(dir).open()
            }
            opened => opened,
        };
        let db = db.map_err(|error| open_error(dir, error))?;
        let books = db.keyspace(BOOKS_KEYSPACE, KeyspaceCreateOptions::default).map_err(|e| open_error(dir, e))?;
        let store = Self { dir: dir.to_owned(), db, books, state: RwLock::default() };
        store.check_format()?;
        store.load()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<()> {
        match self.books.get(books::FORMAT).map_err(|error| self.error("could not open", error))? {
            Some(version) if version[..] == FORMAT_VERSION => Ok(()),
            Some(_) => Err(self.damage("was written by another version of tidegate")),
            None => self.write_books(books::FORMAT.to_vec(), FORMAT_VERSION.to_vec()),
        }
    }

    fn load(&self) -> Result<()> {
        let mut state = State::default();
        for item in self.books.iter() {
            let (key, value) = item.into_inner().map_err(|error| self.error("could not read", error))?;
            self.load_entry(&mut state, &key, &value)?;
        }
        *self.write() = state;
        Ok(())
    }

    fn load_entry(&self, state: &mut State, key: &[u8], value: &[u8]) -> Result<()> {
        let damage = || self.damage("has an entry in its books that cannot be read");
        let text = |bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| damage());
        if key == books::FORMAT {
            return Ok(());
        }
        match key.split_first().ok_or_else(damage)? {
            (&books::TOPIC, name) => {
                let partitions = i32::from_be_bytes(value.try_into().map_err(|_| damage())?);
                let topic = self.topic_on_disk(&text(name)?, partitions)?;
                let ends: Result<Vec<_>> = (0..partitions).map(|partition| self.last(&topic, partition)).collect();
                state.partitions.insert(topic.name.clone(), ends?);
                state.topics.insert(topic.name.clone(), topic);
            }
            (&books::EPOCH, id) => {
                let epoch = u64::from_be_bytes(value.try_into().map_err(|_| damage())?);
                state.epochs.insert(text(id)?, epoch);
            }
            (&books::OFFSET, _) => {
                let (group, topic, partition) = books::parse_offset(key).ok_or_else(damage)?;
                let offset = i64::from_be_bytes(value.try_into().map_err(|_| damage())?);
                let of_topic = state.committed.entry((group.to_owned(), topic.to_owned())).or_default();
                of_topic.insert(partition, offset);
            }
            _ => return Err(damage()),
        }
        Ok(())
    }

    fn topic_on_disk(&self, name: &str, partitions: i32) -> Result<Arc<Topic>> {
        let options = || {
            // Records are only ever read in ranges, which no filter helps.
            let options = KeyspaceCreateOptions::default().filter_policy(FilterPolicy::disabled());
            options.data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        };
        let keyspace = self.db.keyspace(&format!("{TOPIC_KEYSPACE_PREFIX}{name}"), options);
        let keyspace = keyspace.map_err(|error| self.error(&format!("could not open topic `{name}` in"), error))?;
        Ok(Arc::new(Topic { name: name.to_owned(), partitions, keyspace, changed: watch::Sender::new(()) }))
    }

    /// Where a partition ends, from its last record.
    fn last(&self, topic: &Topic, partition: i32) -> Result<Partition> {
        let range = codec::record_key(partition, 0)..=codec::record_key(partition, i64::MAX);
        let Some(last) = topic.keyspace.range(range).next_back() else {
            return Ok(Partition { end: 0, time_max: i64::MIN });
        };
        let (key, value) = last.into_inner().map_err(|error| self.read_error(topic, partition, error))?;
        let (offset, time_max) = (codec::key_offset(&key), codec::time_max(&value));
        let (Some(offset), Some(time_max)) = (offset, time_max) else {
            return Err(self.record_damage(topic, partition, offset.unwrap_or_default()));
        };
        Ok(Partition { end: offset + 1, time_max })
    }

    /// Creates a topic, on disk once this returns. The caller keeps others from writing meanwhile.
    pub(super) fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
        if self.read().topics.contains_key(&spec.name) {
            return Ok(false);
        }
        let topic = self.topic_on_disk(&spec.name, spec.partitions)?;
        self.write_books(books::named(books::TOPIC, &spec.name), spec.partitions.to_be_bytes().to_vec())?;
        let empty = vec![Partition { end: 0, time_max: i64::MIN }; spec.partitions.unsigned_abs() as usize];
        let mut state = self.write();
        state.partitions.insert(spec.name.clone(), empty);
        state.topics.insert(spec.name.clone(), topic);
        Ok(true)
    }

    /// Gives a new writer of `id` its epoch, and fences older ones. The caller keeps others from writing meanwhile.
    pub(super) fn fence(&self, id: &str) -> Result<u64> {
        let epoch = self.epoch(id) + 1;
        self.write_books(books::named(books::EPOCH, id), epoch.to_be_bytes().to_vec())?;
        self.write().epochs.insert(id.to_owned(), epoch);
        Ok(epoch)
    }

    fn write_books(&self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.books, key, value);
        batch.commit().map_err(|error| self.write_error("could not write to", error))
    }

    /// Writes a batch to disk, then makes it visible. The caller keeps others from writing meanwhile.
    pub(super) fn commit(&self, batch: &Batch) -> Result<()> {
        if let Some((id, epoch)) = &batch.fence {
            self.check_fence(id, *epoch)?;
        }
        let mut ends = HashMap::new();
        let mut items = self.db.batch().durability(Some(PersistMode::SyncAll));
        for placed in &batch.records {
            let (topic, partition) = (placed.topic.name.as_str(), placed.partition);
            let at = ends.entry((topic, partition)).or_insert_with(|| self.partition(topic, partition));
            at.time_max = at.time_max.max(placed.timestamp_ms);
            let value = codec::encode(&placed.record, placed.timestamp_ms, at.time_max);
            items.insert(&placed.topic.keyspace, codec::record_key(partition, at.end), value);
            at.end += 1;
        }
        for commit in &batch.offsets {
            let key = books::offset(&commit.group, &commit.topic, commit.partition);
            items.insert(&self.books, key, commit.offset.to_be_bytes());
        }
        items.commit().map_err(|error| self.write_error("could not commit to", error))?;
        self.publish(batch, &ends);
        Ok(())
    }

    fn publish(&self, batch: &Batch, ends: &HashMap<(&str, i32), Partition>) {
        let mut state = self.write();
        for ((topic, partition), at) in ends {
            let slot = usize::try_from(*partition).ok();
            let partitions = state.partitions.get_mut(*topic);
            if let Some(slot) = partitions.zip(slot).and_then(|(partitions, slot)| partitions.get_mut(slot)) {
                *slot = *at;
            }
        }
        for commit in &batch.offsets {
            let of_topic = state.committed.entry((commit.group.clone(), commit.topic.clone())).or_default();
            of_topic.insert(commit.partition, commit.offset);
        }
        for (topic, _) in ends.keys() {
            if let Some(topic) = state.topics.get(*topic) {
                topic.changed.send_replace(());
            }
        }
    }

    /// Fails when a newer writer of `id` was given an epoch.
    pub(super) fn check_fence(&self, id: &str, epoch: u64) -> Result<()> {
        if self.epoch(id) == epoch {
            return Ok(());
        }
        let message = format!("a newer writer with transactional id `{id}` took over");
        Err(Error::new(ErrorKind::Fenced, message))
    }

    fn epoch(&self, id: &str) -> u64 {
        self.read().epochs.get(id).copied().unwrap_or_default()
    }

    /// All topics by name.
    pub(super) fn topics(&self) -> Vec<Arc<Topic>> {
        self.read().topics.values().map(Arc::clone).collect()
    }

    /// A topic, if it exists.
    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().topics.get(name).map(Arc::clone)
    }

    /// Ends of all partitions of `topic`.
    pub(super) fn ends(&self, topic: &Topic) -> Vec<i64> {
        let state = self.read();
        state.partitions.get(&topic.name).into_iter().flatten().map(|partition| partition.end).collect()
    }

    fn partition(&self, topic: &str, partition: i32) -> Partition {
        let slot = usize::try_from(partition).unwrap_or(usize::MAX);
        let found = self.read().partitions.get(topic).and_then(|partitions| partitions.get(slot).copied());
        found.expect("a record is placed only in a partition that exists, and none is ever removed")
    }

    /// Offsets that `group` committed for `topic`.
    pub(super) fn committed(&self, group: &str, topic: &str) -> Vec<(i32, i64)> {
        let state = self.read();
        let of_topic = state.committed.get(&(group.to_owned(), topic.to_owned()));
        of_topic.into_iter().flatten().map(|(partition, offset)| (*partition, *offset)).collect()
    }

    /// Records of `[from, end)`, until there are `records_max` or they hold `bytes_max`; at least one.
    pub(super) fn read_records(
        &self,
        topic: &Topic,
        partition: i32,
        range: std::ops::Range<i64>,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<(Vec<StoredRecord>, usize)> {
        let (mut records, mut bytes, mut expected) = (Vec::new(), 0, range.start);
        let keys = codec::record_key(partition, range.start)..codec::record_key(partition, range.end);
        for item in topic.keyspace.range(keys) {
            if records.len() >= records_max || bytes >= bytes_max {
                break;
            }
            let (key, value) = item.into_inner().map_err(|error| self.read_error(topic, partition, error))?;
            // Offsets are dense: a hole is data lost.
            if codec::key_offset(&key) != Some(expected) {
                return Err(self.record_damage(topic, partition, expected));
            }
            bytes += value.len();
            records.push(self.decode(topic, partition, expected, value)?);
            expected += 1;
        }
        if records.is_empty() && range.start < range.end {
            return Err(self.record_damage(topic, partition, range.start));
        }
        Ok((records, bytes))
    }

    /// Offset of the first record of `[0, end)` whose time is at or after `timestamp_ms`; `end` when there is none.
    pub(super) fn offset_at(&self, topic: &Topic, partition: i32, end: i64, timestamp_ms: i64) -> Result<i64> {
        // The greatest time so far reaches `timestamp_ms` exactly at the first record that does.
        let (mut low, mut high) = (0, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let value = topic.keyspace.get(codec::record_key(partition, middle));
            let value = value.map_err(|error| self.read_error(topic, partition, error))?;
            let time_max = value.as_deref().and_then(codec::time_max);
            match time_max.ok_or_else(|| self.record_damage(topic, partition, middle))? {
                time_max if time_max >= timestamp_ms => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// Last record of `[0, end)` with `key`.
    pub(super) fn last_by_key(
        &self,
        topic: &Topic,
        partition: i32,
        end: i64,
        key: &[u8],
    ) -> Result<Option<StoredRecord>> {
        let range = codec::record_key(partition, 0)..codec::record_key(partition, end);
        for item in topic.keyspace.range(range).rev() {
            let (at, value) = item.into_inner().map_err(|error| self.read_error(topic, partition, error))?;
            let offset = codec::key_offset(&at).unwrap_or_default();
            let bytes = Bytes::from_owner(value);
            match codec::has_key(&bytes, key) {
                Some(true) => {
                    let record = codec::decode(partition, offset, &bytes);
                    return record.map(Some).ok_or_else(|| self.record_damage(topic, partition, offset));
                }
                Some(false) => {}
                None => return Err(self.record_damage(topic, partition, offset)),
            }
        }
        Ok(None)
    }

    fn decode(&self, topic: &Topic, partition: i32, offset: i64, value: Slice) -> Result<StoredRecord> {
        let record = codec::decode(partition, offset, &Bytes::from_owner(value));
        record.ok_or_else(|| self.record_damage(topic, partition, offset))
    }

    // A panic while the lock is held cannot leave the state half changed: nothing that follows a change can panic.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, tried: &str, error: fjall::Error) -> Error {
        let message = format!("{tried} the embedded log in `{}`", self.dir.display());
        Error::new(kind_of(&error), message).with_source(error)
    }

    /// After a failed write or fsync fjall takes nothing more: whether the batch is on disk is known after a restart.
    fn write_error(&self, tried: &str, error: fjall::Error) -> Error {
        match kind_of(&error) {
            ErrorKind::Unavailable => {
                let message = format!(
                    "{tried} the embedded log in `{}`, which takes nothing more until tidegate is started again; is the \
                     disk full?",
                    self.dir.display()
                );
                Error::new(ErrorKind::Stopped, message).with_source(error)
            }
            _ => self.error(tried, error),
        }
    }

    fn read_error(&self, topic: &Topic, partition: i32, error: fjall::Error) -> Error {
        self.error(&format!("could not read topic `{}` partition {partition} of", topic.name), error)
    }

    fn damage(&self, what: &str) -> Error {
        Error::new(ErrorKind::Data, format!("the embedded log in `{}` {what}", self.dir.display()))
    }

    fn record_damage(&self, topic: &Topic, partition: i32, offset: i64) -> Error {
        let name = &topic.name;
        self.damage(&format!("has no readable record at topic `{name}` partition {partition} offset {offset}"))
    }
}

impl Topic {
    /// Rings after something was added.
    pub(super) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Removes what a process left that was killed while it created the log; nothing was ever committed to it.
fn clear_half_created(dir: &Path) -> Result<()> {
    let tried = |error| open_error(dir, fjall::Error::Io(error));
    // fjall writes `version` last, and holds `lock` as long as it is open.
    let lock = File::options().read(true).write(true).open(dir.join("lock")).map_err(tried)?;
    lock.try_lock().map_err(|_| open_error(dir, fjall::Error::Locked))?;
    if dir.join("version").try_exists().map_err(tried)? {
        return Err(Error::new(ErrorKind::Internal, format!("`{}` was created twice", dir.display())));
    }
    std::fs::remove_file(dir.join("0.jnl")).map_err(tried)?;
    std::fs::remove_dir_all(dir.join("keyspaces")).map_err(tried)
}

fn open_error(dir: &Path, error: fjall::Error) -> Error {
    let dir = dir.display();
    let message = match &error {
        fjall::Error::Locked => {
            let hint = "run ingest, lander and jobs in one process with `tidegate up`, or use Kafka";
            return Error::new(
                ErrorKind::Config,
                format!("data directory `{dir}` is in use by another tidegate process; {hint}"),
            );
        }
        _ => format!("could not open the embedded log in `{dir}`"),
    };
    Error::new(kind_of(&error), message).with_source(error)
}

fn kind_of(error: &fjall::Error) -> ErrorKind {
    use fjall::Error as E;
    match error {
        E::Locked => ErrorKind::Config,
        E::Io(_) | E::Poisoned | E::Storage(fjall::LsmError::Io(_)) => ErrorKind::Unavailable,
        E::KeyspaceDeleted => ErrorKind::Internal,
        _ => ErrorKind::Data,
    }
}
