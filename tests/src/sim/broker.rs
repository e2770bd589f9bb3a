//! The model: what a Kafka cluster knows, as plain values that change at once.
//!
//! ```text
//! partition  r0 r1 t7 t7 r4 M7 t9        r: a record, t7: one of transaction 7, M7: its marker
//!                              ↑ last stable offset: transaction 9 has no marker yet
//! ```
//!
//! Records of a transaction lie in the log when they are sent; its markers, written at its end, say whether they
//! count, and take an offset each. Markers may reach the partitions one after another. Nothing is deleted or compacted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use topic::{Error, ErrorKind, OffsetRange, Offsets, Result, StoredRecord, TopicInfo, TopicSpec, partition_for_key};

/// What the model gets wrong on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Readers see records that are not committed, or never will be.
    VisibleBeforeCommit,
    /// An older writer of a transactional id goes on beside the newer one.
    NoFencing,
    /// A commit that was decided is forgotten where its markers have not arrived when a new writer opens.
    ForgottenDecision,
    /// A put that was torn is reported as done. The store's, not the broker's.
    SilentTear,
}

/// How the model behaves where Kafka leaves it open, and what it gets wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// After a commit the partitions get their markers one a step, not all at once.
    pub slow_markers: bool,
    /// An older writer learns that it is fenced when it commits, not before.
    pub late_fencing: bool,
    /// What is wrong with it.
    pub defect: Option<Defect>,
}

#[derive(Debug, Default)]
struct Partition {
    log: Vec<Entry>,
    /// Transactions without a marker here, and the offset of their first record.
    open: BTreeMap<u64, i64>,
    aborted: BTreeSet<u64>,
}

#[derive(Debug)]
struct Entry {
    /// None is a marker.
    record: Option<StoredRecord>,
    transaction: Option<u64>,
}

#[derive(Debug, Default)]
struct Transaction {
    touched: BTreeSet<(String, i32)>,
    offsets: Vec<(String, String, i32, i64)>,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u64,
    open: Option<u64>,
}

/// Group offsets: group and topic, partition, next offset.
pub(super) type Groups = BTreeMap<(String, String), BTreeMap<i32, i64>>;

/// A cluster.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) rules: Rules,
    /// The run that opened a transactional writer last.
    pub(super) newest_run: Option<u32>,
    topics: BTreeMap<String, Vec<Partition>>,
    producers: BTreeMap<String, Producer>,
    open: BTreeMap<u64, Transaction>,
    /// Markers still to be written; none is the group's partition.
    committing: VecDeque<(u64, Option<(String, i32)>)>,
    /// Offsets of transactions that are committing.
    decided: BTreeMap<u64, Transaction>,
    groups: Groups,
    transactions: u64,
}

impl Partition {
    fn end(&self) -> i64 {
        i64::try_from(self.log.len()).expect("a test's log is short")
    }

    /// Last stable offset.
    fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or_else(|| self.end())
    }

    fn mark(&mut self, transaction: u64, committed: bool) {
        self.open.remove(&transaction);
        if !committed {
            self.aborted.insert(transaction);
        }
        self.log.push(Entry { record: None, transaction: Some(transaction) });
    }
}

impl Broker {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    pub(super) fn create_topic(&mut self, spec: &TopicSpec) -> Result<bool> {
        let (name, count) = (&spec.name, usize::try_from(spec.partitions).unwrap_or(0));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=249).contains(&name.len()) || !name.bytes().all(allowed) || name == "." || name == ".." || count == 0 {
            return Err(Error::new(ErrorKind::Config, format!("`{name}` with {count} partitions cannot be a topic")));
        }
        if self.topics.contains_key(name) {
            return Ok(false);
        }
        let partitions = std::iter::repeat_with(Partition::default).take(count).collect();
        self.topics.insert(name.clone(), partitions);
        Ok(true)
    }

    pub(super) fn topics(&self) -> Vec<TopicInfo> {
        let shown = self.topics.iter().filter(|(name, _)| !name.starts_with("__"));
        shown.map(|(name, all)| TopicInfo { name: name.clone(), partitions: index(all.len()) }).collect()
    }

    fn topic(&self, name: &str) -> Result<&Vec<Partition>> {
        self.topics.get(name).ok_or_else(|| no_topic(name))
    }

    fn partition(&mut self, topic: &str, partition: i32) -> Result<&mut Partition> {
        let all = self.topics.get_mut(topic).ok_or_else(|| no_topic(topic))?;
        let found = usize::try_from(partition).ok().and_then(|at| all.get_mut(at));
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("topic `{topic}` has no partition {partition}")))
    }

    pub(super) fn partitions(&self, topic: &str) -> Result<i32> {
        Ok(index(self.topic(topic)?.len()))
    }

    /// The end for readers: the last stable offset, unless that rule is broken.
    fn readable(&self, partition: &Partition) -> i64 {
        if self.rules.defect == Some(Defect::VisibleBeforeCommit) { partition.end() } else { partition.stable() }
    }

    pub(super) fn ranges(&self, topic: &str) -> Result<Vec<OffsetRange>> {
        let ends = self.topic(topic)?.iter().map(|partition| self.readable(partition));
        Ok((0..).zip(ends).map(|(partition, end)| OffsetRange { partition, start: 0, end }).collect())
    }

    /// Whether no partition of a topic lacks a marker.
    pub(super) fn is_stable(&self, topic: &str) -> bool {
        self.topic(topic).is_ok_and(|all| all.iter().all(|partition| partition.open.is_empty()))
    }

    /// Committed records of a partition from an offset on.
    fn visible<'a>(&'a self, partition: &'a Partition, from: i64) -> impl DoubleEndedIterator<Item = &'a StoredRecord> {
        let (from, end) = (position(from), position(self.readable(partition)));
        let all = self.rules.defect == Some(Defect::VisibleBeforeCommit);
        let entries = partition.log.get(from..end).unwrap_or_default().iter();
        entries
            .filter(move |entry| all || entry.transaction.is_none_or(|number| !partition.aborted.contains(&number)))
            .filter_map(|entry| entry.record.as_ref())
    }

    pub(super) fn offsets_at(&self, topic: &str, timestamp_ms: i64) -> Result<Offsets> {
        let first = |partition: &Partition| {
            let found = self.visible(partition, 0).find(|record| record.timestamp_ms >= timestamp_ms);
            found.map_or_else(|| self.readable(partition), |record| record.offset)
        };
        Ok((0..).zip(self.topic(topic)?).map(|(at, partition)| (at, first(partition))).collect())
    }

    /// Up to `most` committed records of a partition from `from` on, and the position after them.
    pub(super) fn read(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        most: usize,
    ) -> Result<(Vec<StoredRecord>, i64)> {
        self.partition(topic, partition)?;
        let found = &self.topic(topic)?[position(i64::from(partition))];
        let records: Vec<StoredRecord> = self.visible(found, from).take(most).cloned().collect();
        let next = match records.last() {
            Some(last) if records.len() == most => last.offset + 1,
            _ if most == 0 => from,
            _ => self.readable(found).max(from),
        };
        Ok((records, next))
    }

    /// Checks that a reader may start there.
    pub(super) fn check_offset(&mut self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        self.partition(topic, partition)?;
        let end = self.readable(&self.topic(topic)?[position(i64::from(partition))]);
        if (0..=end).contains(&offset) {
            return Ok(());
        }
        let message = format!("offset {offset} of topic `{topic}` partition {partition} lies outside [0, {end})");
        Err(Error::new(ErrorKind::Data, message))
    }

    pub(super) fn last_by_key(&self, topic: &str, key: &[u8]) -> Result<Option<StoredRecord>> {
        let all = self.topic(topic)?;
        let found = &all[position(i64::from(partition_for_key(key, index(all.len()))))];
        let last = self.visible(found, 0).rev().find(|record| record.key.as_deref() == Some(key));
        Ok(last.filter(|record| record.value.is_some()).cloned())
    }

    pub(super) fn committed(&self, group: &str, topic: &str) -> Result<Offsets> {
        self.topic(topic)?;
        let found = self.groups.get(&(group.to_owned(), topic.to_owned()));
        Ok(found.map(|offsets| offsets.iter().map(|(p, o)| (*p, *o)).collect()).unwrap_or_default())
    }

    pub(super) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Lets one marker of a commit arrive.
    pub(super) fn tick(&mut self) {
        let Some((number, target)) = self.committing.pop_front() else { return };
        match target {
            Some((topic, partition)) => self.write_marker(number, &topic, partition, true),
            None => {
                for (group, topic, partition, offset) in self.decided.remove(&number).unwrap_or_default().offsets {
                    self.groups.entry((group, topic)).or_default().insert(partition, offset);
                }
            }
        }
    }

    /// Lets all markers arrive.
    pub(super) fn settle(&mut self) {
        while !self.committing.is_empty() {
            self.tick();
        }
    }

    fn write_marker(&mut self, number: u64, topic: &str, partition: i32, committed: bool) {
        self.partition(topic, partition).expect("a transaction touches what is there").mark(number, committed);
    }

    /// Opens a writer of `id`: its epoch. What an older one had open is aborted, what it had decided is done first.
    pub(super) fn open_producer(&mut self, id: &str) -> u64 {
        if self.rules.defect == Some(Defect::ForgottenDecision) {
            for (number, target) in std::mem::take(&mut self.committing) {
                match target {
                    Some((topic, partition)) => self.write_marker(number, &topic, partition, false),
                    None => drop(self.decided.remove(&number)),
                }
            }
        }
        self.settle();
        let producer = self.producers.entry(id.to_owned()).or_default();
        producer.epoch += 1;
        let epoch = producer.epoch;
        if let Some(number) = producer.open.take()
            && self.rules.defect != Some(Defect::NoFencing)
        {
            self.end_transaction(number, false);
        }
        epoch
    }

    pub(super) fn check_epoch(&self, id: &str, epoch: u64) -> Result<()> {
        let newest = self.producers.get(id).map_or(0, |producer| producer.epoch);
        if epoch == newest || self.rules.defect == Some(Defect::NoFencing) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Fenced, format!("a newer writer of `{id}` took over")))
    }

    /// Begins a transaction; one of no producer when `id` is none.
    pub(super) fn begin(&mut self, id: Option<&str>) -> u64 {
        self.transactions += 1;
        let number = self.transactions;
        self.open.insert(number, Transaction::default());
        if let Some(producer) = id.and_then(|id| self.producers.get_mut(id)) {
            producer.open = Some(number);
        }
        number
    }

    /// Appends a record: its offset.
    pub(super) fn append(&mut self, topic: &str, record: StoredRecord, transaction: Option<u64>) -> Result<i64> {
        let at = record.partition;
        let partition = self.partition(topic, at)?;
        let offset = partition.end();
        partition.log.push(Entry { record: Some(StoredRecord { offset, ..record }), transaction });
        if let Some(number) = transaction {
            partition.open.entry(number).or_insert(offset);
            if let Some(open) = self.open.get_mut(&number) {
                open.touched.insert((topic.to_owned(), at));
            }
        }
        Ok(offset)
    }

    pub(super) fn add_offsets(&mut self, transaction: u64, group: &str, topic: &str, offsets: &[(i32, i64)]) {
        if let Some(open) = self.open.get_mut(&transaction) {
            let owned = offsets.iter().map(|(p, o)| (group.to_owned(), topic.to_owned(), *p, *o));
            open.offsets.extend(owned);
        }
    }

    /// Ends a transaction that is open: decided at once, its markers as the rules have it.
    pub(super) fn end_transaction(&mut self, number: u64, commit: bool) {
        let Some(ended) = self.open.remove(&number) else { return };
        for producer in self.producers.values_mut() {
            producer.open = producer.open.filter(|open| *open != number);
        }
        if !commit {
            for (topic, partition) in &ended.touched {
                self.write_marker(number, topic, *partition, false);
            }
            return;
        }
        let touched = ended.touched.iter().cloned().map(Some);
        self.committing.extend(touched.chain([None]).map(|target| (number, target)));
        self.decided.insert(number, ended);
        if !self.rules.slow_markers {
            self.settle();
        }
    }
}

fn no_topic(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("topic `{name}` does not exist"))
}

fn index(count: usize) -> i32 {
    i32::try_from(count).expect("a topic has few partitions")
}

/// An offset or a partition as a place in a list.
fn position(at: i64) -> usize {
    usize::try_from(at).unwrap_or(0)
}
