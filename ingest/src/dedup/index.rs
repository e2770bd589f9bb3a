//! The ids of a raw topic on disk, in fjall: what memory has forgotten is still known.
//!
//! It is derived from the topic and lies behind it, never ahead: ids come in once their transaction is committed,
//! each lot in one atomic batch with the offsets up to which every record is in. Not synced to the disk: what a power
//! cut takes is read again from the topic. A directory that is damaged, or that another process holds, is left as it
//! lies, and the next one, numbered one higher, begins empty; whoever opens a whole one removes those before it.
//!
//! A look-up of an id that is not there costs no disk: filters (10 bits an id) and block indexes stay in memory. One in
//! a hundred of them, and every id that is there, reads a block of 4 KiB, for the most part from the system's cache.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use fjall::config::{
    BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use topic::Offsets;

use super::Prefix;
use crate::error::{Error, ErrorKind, Result};

/// Format of keys and values in the directory.
const FORMAT_VERSION: [u8; 1] = [1];
const FORMAT_KEY: &[u8] = b"format";
/// The id that was added last.
const LAST_KEY: &[u8] = b"last";
/// Before a partition, big-endian: the next offset that may not be in.
const APPLIED_KEY: u8 = b'o';
/// Says that a directory is not to be opened again.
const DAMAGED: &str = "damaged";
/// Ids that wait in memory to be written out as a run: half of them, since the tree keeps twice its size for a while.
const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNALS_BYTES: u64 = 64 << 20;
const CACHE_BYTES: u64 = 16 << 20;
const FILTER_BITS: f32 = 10.0;
/// How often, and how long apart, a directory that another process holds is tried: one that was just taken over, or
/// told to end, lets go of it.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(200);

/// How far the index is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Every record before these offsets is in.
    pub(crate) applied: Offsets,
    /// The id that was added last; its record lies at or after its partition's offset in `applied`.
    pub(crate) last: Option<Prefix>,
}

/// Ids by their first half, and how far they go.
pub(crate) struct Index {
    /// All directories of the topic.
    home: PathBuf,
    number: u64,
    db: Database,
    ids: Keyspace,
    books: Keyspace,
    damage: OnceLock<String>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("dir", &self.dir()).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index below `home`, or begins one. Blocks, for seconds where another process lets go of it.
    ///
    /// # Errors
    /// `Config` when `home` cannot be made or written.
    pub(crate) fn open(home: &Path) -> Result<Self> {
        std::fs::create_dir_all(home).map_err(|error| unwritable(home, error))?;
        let newest = numbers(home).map_err(|error| unwritable(home, error))?.last().copied();
        let Some(newest) = newest else { return Self::begin(home, 1) };
        match held_open(home, newest) {
            Ok(index) => {
                index.remove_older();
                Ok(index)
            }
            Err(error) if hopeless(&error) => Err(unwritable(home, error)),
            Err(error) => {
                tracing::warn!(dir = %dir(home, newest).display(), %error, "the index of known ids cannot be used; it is made anew from the topic");
                Self::begin(home, newest + 1)
            }
        }
    }

    fn begin(home: &Path, number: u64) -> Result<Self> {
        open_at(home, number).map_err(|error| unwritable(home, error))
    }

    /// Leaves this index as it lies, and begins an empty one.
    pub(crate) fn anew(self) -> Result<Self> {
        let (home, number) = (self.home.clone(), self.number);
        drop(self);
        Self::begin(&home, number + 1)
    }

    fn dir(&self) -> PathBuf {
        dir(&self.home, self.number)
    }

    /// Whether an id is in. One that cannot be looked up is not, and from then on [`Self::sound`] fails.
    pub(crate) fn contains(&self, id: Prefix) -> bool {
        self.ids.contains_key(id.to_be_bytes()).unwrap_or_else(|error| {
            if self.damage.set(error.to_string()).is_ok() {
                // Where even that cannot be written, the next run finds the damage again.
                drop(File::create(self.dir().join(DAMAGED)));
            }
            false
        })
    }

    /// Fails once an id could not be looked up: nothing may be published that was taken for new by then.
    ///
    /// # Errors
    /// `Data`.
    pub(crate) fn sound(&self) -> Result<()> {
        let Some(why) = self.damage.get() else { return Ok(()) };
        let message = format!(
            "the index of known ids in `{}` is damaged ({why}); start again, and it is made anew from the topic",
            self.dir().display()
        );
        Err(Error::new(ErrorKind::Data, message))
    }

    /// Adds ids whose records are committed; with them, every record before `applied` is in.
    pub(crate) fn add(&self, ids: &[Prefix], applied: &[(i32, i64)]) -> fjall::Result<()> {
        let Some(last) = ids.last() else { return Ok(()) };
        let mut batch = self.db.batch();
        for id in ids {
            batch.insert(&self.ids, id.to_be_bytes(), []);
        }
        for (partition, offset) in applied {
            batch.insert(&self.books, applied_key(*partition), offset.to_be_bytes());
        }
        batch.insert(&self.books, LAST_KEY, last.to_be_bytes());
        batch.commit()
    }

    /// How far it is.
    pub(crate) fn mark(&self) -> io::Result<Mark> {
        let mut mark = Mark::default();
        for item in self.books.iter() {
            let (key, value) = item.into_inner().map_err(io::Error::other)?;
            match (key.split_first(), &value[..]) {
                (Some((&APPLIED_KEY, partition)), offset) => {
                    let entry = <[u8; 4]>::try_from(partition).ok().zip(<[u8; 8]>::try_from(offset).ok());
                    let (partition, offset) = entry.ok_or_else(|| damaged("an offset"))?;
                    mark.applied.push((i32::from_be_bytes(partition), i64::from_be_bytes(offset)));
                }
                _ if key[..] == *LAST_KEY => {
                    let last = <[u8; 16]>::try_from(&value[..]).map_err(|_| damaged("an id"))?;
                    mark.last = Some(Prefix::from_be_bytes(last));
                }
                _ => {}
            }
        }
        Ok(mark)
    }

    fn remove_older(&self) {
        for number in numbers(&self.home).unwrap_or_default().into_iter().filter(|number| *number < self.number) {
            let older = dir(&self.home, number);
            // A process that was taken over, and sleeps, may have it open still.
            let free = File::open(older.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
            if (free || !older.join("lock").exists())
                && let Err(error) = std::fs::remove_dir_all(&older)
            {
                tracing::warn!(dir = %older.display(), %error, "an index of known ids that is not used could not be removed");
            }
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} cannot be read"))
}

fn dir(home: &Path, number: u64) -> PathBuf {
    home.join(number.to_string())
}

/// Numbers of the directories, ascending.
fn numbers(home: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(home)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a directory, waiting for whoever holds it to let go.
fn held_open(home: &Path, number: u64) -> io::Result<Index> {
    for _ in 0..LOCK_TRIES {
        match open_at(home, number) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(LOCK_WAIT),
            opened => return opened,
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process holds it, and does not let go"))
}

fn open_at(home: &Path, number: u64) -> io::Result<Index> {
    let at = dir(home, number);
    if at.join(DAMAGED).exists() {
        return Err(damaged("a part of it"));
    }
    // What was written by nobody of ours, or flipped, is met with more than errors in places.
    let opened = catch_unwind(AssertUnwindSafe(|| keyspaces(&at)));
    let (db, ids, books) = opened.map_err(|_| damaged("what opens it"))?.map_err(|error| match error {
        fjall::Error::Locked => io::Error::new(io::ErrorKind::ResourceBusy, "another process holds it"),
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    })?;
    let index = Index { home: home.to_owned(), number, db, ids, books, damage: OnceLock::new() };
    match index.books.get(FORMAT_KEY).map_err(io::Error::other)? {
        Some(version) if version[..] == FORMAT_VERSION => {
            index.mark()?;
        }
        Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "another version of tidegate wrote it")),
        None => index.books.insert(FORMAT_KEY, FORMAT_VERSION).map_err(io::Error::other)?,
    }
    Ok(index)
}

fn keyspaces(at: &Path) -> fjall::Result<(Database, Keyspace, Keyspace)> {
    let db =
        Database::builder(at).worker_threads(1).cache_size(CACHE_BYTES).max_journaling_size(JOURNALS_BYTES).open()?;
    let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(MEMTABLE_BYTES)
            .filter_policy(FilterPolicy::all(filter))
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .filter_block_partitioning_policy(PartitioningPolicy::all(false))
            .index_block_pinning_policy(PinningPolicy::all(true))
            .index_block_partitioning_policy(PartitioningPolicy::all(false))
            // Hashes do not compress.
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
    };
    let ids = db.keyspace("ids", options)?;
    let books = db.keyspace("books", KeyspaceCreateOptions::default)?;
    Ok((db, ids, books))
}

/// What a new directory would not help with.
fn hopeless(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::PermissionDenied | E::ReadOnlyFilesystem | E::StorageFull | E::QuotaExceeded)
}

fn unwritable(home: &Path, error: io::Error) -> Error {
    let message = format!(
        "could not open the index of known ids in `{}`: --data-dir must name a place that can be written",
        home.display()
    );
    Error::new(ErrorKind::Config, message).with_source(error)
}

fn applied_key(partition: i32) -> [u8; 5] {
    let [a, b, c, d] = partition.to_be_bytes();
    [APPLIED_KEY, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    use tempfile::TempDir;

    use super::*;

    const LOTS: u128 = 20;
    const LOT: u128 = 500;

    /// Ids as scattered as hashes are.
    fn id(number: u128) -> Prefix {
        (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn add(index: &Index, lot: u128) {
        let ids: Vec<Prefix> = (lot * LOT..(lot + 1) * LOT).map(id).collect();
        let next = i64::try_from((lot + 1) * LOT).expect("few");
        index.add(&ids, &[(0, next), (7, 2 * next)]).expect("added");
    }

    /// An index of many lots, the first half of them written out as runs.
    fn filled(home: &Path) -> Index {
        let index = Index::open(home).expect("an index");
        (0..LOTS / 2).for_each(|lot| add(&index, lot));
        index.ids.rotate_memtable_and_wait().expect("written out");
        index.books.rotate_memtable_and_wait().expect("written out");
        (LOTS / 2..LOTS).for_each(|lot| add(&index, lot));
        index
    }

    fn applied(index: &Index) -> u128 {
        let mark = index.mark().expect("a mark");
        let offset = mark.applied.iter().find(|(partition, _)| *partition == 0).map_or(0, |(_, offset)| *offset);
        u128::try_from(offset).expect("an offset")
    }

    #[test]
    fn what_was_added_is_there_after_a_new_start_and_nothing_else() {
        let home = TempDir::new().expect("a directory");
        drop(filled(home.path()));
        let index = Index::open(home.path()).expect("an index");
        assert!((0..LOTS * LOT).all(|number| index.contains(id(number))));
        assert!((LOTS * LOT..2 * LOTS * LOT).all(|number| !index.contains(id(number))));
        let end = i64::try_from(LOTS * LOT).expect("few");
        assert_eq!(
            index.mark().expect("a mark"),
            Mark { applied: vec![(0, end), (7, 2 * end)], last: Some(id(LOTS * LOT - 1)) }
        );
        index.sound().expect("sound");
    }

    #[test]
    fn one_that_is_held_is_left_and_the_next_begins_empty() {
        let home = TempDir::new().expect("a directory");
        let held = filled(home.path());
        let other = Index::open(home.path()).expect("an index");
        assert!(held.contains(id(0)) && !other.contains(id(0)));
        assert_eq!((held.number, other.number), (1, 2));
        drop(other);
        // The one before is in use still, and stays; then it is not, and goes.
        drop(Index::open(home.path()).expect("an index"));
        assert!(held.contains(id(1)) && held.dir().exists());
        drop(held);
        drop(Index::open(home.path()).expect("an index"));
        assert_eq!(numbers(home.path()).expect("a list"), [2]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let home = TempDir::new().expect("a directory");
        let file = home.path().join("file");
        std::fs::write(&file, "in the way").expect("a file");
        let error = Index::open(&file.join("ids")).expect_err("no place");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
        }
        found.sort();
        found
    }

    fn copy(from: &Path, to: &Path) {
        for file in files(from) {
            let name = to.join(file.strip_prefix(from).expect("below"));
            std::fs::create_dir_all(name.parent().expect("a parent")).expect("a directory");
            std::fs::copy(&file, &name).expect("a copy");
        }
    }

    /// A byte of a file flipped, or the file cut there, in every file and at many places: what the index says to hold it
    /// holds, or it says that it is damaged, or begins anew.
    #[test]
    fn damage_makes_it_forget_only_what_it_admits() {
        let whole = TempDir::new().expect("a directory");
        drop(filled(whole.path()));
        let (mut anew, mut told, mut kept) = (0, 0, 0);
        for file in files(whole.path()) {
            let len = std::fs::metadata(&file).expect("a file").len();
            // The first half is what was written out, or the head of a journal.
            for (part, cut) in [(1, false), (4, false), (2, true)] {
                {
                    let home = TempDir::new().expect("a directory");
                    copy(whole.path(), home.path());
                    let at = len * part / 6;
                    let copied = home.path().join(file.strip_prefix(whole.path()).expect("below"));
                    let handle = OpenOptions::new().read(true).write(true).open(&copied).expect("a file");
                    if cut {
                        handle.set_len(at).expect("cut");
                    } else if len > 0 {
                        let mut byte = [0];
                        handle.read_exact_at(&mut byte, at).expect("a byte");
                        handle.write_all_at(&[byte[0] ^ 0x55], at).expect("flipped");
                    }
                    drop(handle);
                    let index = Index::open(home.path()).expect("an index");
                    let missing = (0..applied(&index)).filter(|number| !index.contains(id(*number))).count();
                    assert!(
                        missing == 0 || index.sound().is_err(),
                        "{missing} ids are missing: {} at {at}, cut: {cut}",
                        copied.display()
                    );
                    let made_up = (LOTS * LOT..2 * LOTS * LOT).filter(|number| index.contains(id(*number))).count();
                    assert_eq!(made_up, 0, "{} at {at}, cut: {cut}", copied.display());
                    let damaged = index.sound().is_err();
                    (anew, told) = (anew + u32::from(index.number > 1), told + u32::from(damaged));
                    kept += u32::from(index.number == 1 && !damaged);
                    drop(index);
                    let again = Index::open(home.path()).expect("an index");
                    assert!(!damaged || again.number > 1, "what is damaged is not used again");
                }
            }
        }
        assert!(anew > 0 && told > 0 && kept > 0, "{anew} anew, {told} told, {kept} kept");
    }
}
