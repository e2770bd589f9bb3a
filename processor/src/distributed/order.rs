//! What a worker is told: which job, which range, which objects of which lake.

use std::cmp::Reverse;

use event::layout::LakeFormat;
use event::{EventTime, Span, Table};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::Range;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobOptions, JobSource};
use crate::lake::{LakeObject, LakeRange, Needed};
use crate::memory::Memory;

/// A job over a range of a lake. Keys of the store are not in it: a worker has its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    name: String,
    sql: String,
    /// Microseconds, as are all times and spans here.
    window: Option<i64>,
    slide: Option<i64>,
    delay: Option<i64>,
    vars: Vec<(String, String)>,
    from: Option<i64>,
    until: Option<i64>,
    pub(super) place: Place,
    /// What the client's plan of the job is; a worker of another version may plan another.
    plan: String,
}

/// Where rows lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The folder of a topic, as a path or URI.
    pub(super) uri: String,
    table: String,
}

impl Place {
    pub(super) fn new(uri: &str, table: Table) -> Self {
        Self { uri: uri.to_owned(), table: table.name().to_owned() }
    }

    pub(super) fn table(&self) -> Result<Table> {
        Table::named(&self.table)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("the worker knows no table `{}`", self.table)))
    }
}

/// As much of an object as it takes to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    /// The object's number, by least event time.
    pub(super) number: usize,
    path: String,
    json: bool,
    partition: i32,
    start: i64,
    size: u64,
}

impl Order {
    pub(super) fn new(job: &Job, place: Place, (from, until): (Option<EventTime>, Option<EventTime>)) -> Self {
        let (source, options) = job.told();
        let micros = |span: Option<Span>| span.map(Span::micros);
        Self {
            name: source.name.clone(),
            sql: source.sql.clone(),
            window: micros(options.window),
            slide: micros(options.slide),
            delay: micros(options.delay),
            vars: options.vars.clone(),
            from: from.map(EventTime::micros),
            until: until.map(EventTime::micros),
            place,
            plan: plan_of(job),
        }
    }

    /// Plans the job as the client did.
    pub(super) async fn plan(&self, memory: Memory) -> Result<Job> {
        let source = JobSource { name: self.name.clone(), sql: self.sql.clone(), path: None };
        let span = |micros: Option<i64>| micros.map(Span::from_micros);
        let options = JobOptions {
            window: span(self.window),
            slide: span(self.slide),
            delay: span(self.delay),
            vars: self.vars.clone(),
            memory,
        };
        let job = Box::pin(Job::plan(&source, &options)).await?;
        if plan_of(&job) != self.plan {
            let message = format!("the worker's plan of job `{}` is not the client's", self.name);
            return Err(Error::new(ErrorKind::Config, message)
                .with_hint("client and workers have to be the same build of tidegate"));
        }
        Ok(job)
    }

    pub(super) fn range(&self) -> Range {
        let time = |micros: Option<i64>| micros.and_then(EventTime::from_micros);
        Range::new(time(self.from), time(self.until))
    }

    pub(super) fn needed(&self) -> Needed {
        Needed { event_time: self.from..self.until, ..Needed::default() }
    }
}

impl Share {
    pub(super) fn of(number: usize, object: &LakeObject) -> Self {
        let first = object.ranges.first();
        Self {
            number,
            path: object.path.as_ref().to_owned(),
            json: object.format == LakeFormat::JsonGz,
            partition: first.map_or(0, |range| range.partition),
            start: first.map_or(0, |range| range.start),
            size: object.size,
        }
    }

    /// The object, with what its reader wants to know.
    pub(super) fn object(&self) -> Result<LakeObject> {
        let path = Path::parse(&self.path)
            .map_err(|error| Error::internal(format!("`{}` is no path of an object", self.path)).with_source(error))?;
        Ok(LakeObject {
            path,
            topic: String::new(),
            format: if self.json { LakeFormat::JsonGz } else { LakeFormat::Parquet },
            compacted: false,
            hours: (0, 0),
            ranges: vec![LakeRange { partition: self.partition, start: self.start, end: None }],
            size: self.size,
            rows: None,
            event_time: None,
            sha256: None,
        })
    }
}

/// The objects in `parts` parts of nearly the same size, each in the order of its objects' numbers.
pub(super) fn shared_out(objects: &[Share], parts: usize) -> Vec<Vec<Share>> {
    let mut largest: Vec<&Share> = objects.iter().collect();
    largest.sort_by_key(|object| (Reverse(object.size), object.number));
    let mut shares = vec![(0, Vec::new()); parts.max(1)];
    for object in largest {
        if let Some((bytes, share)) = shares.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += object.size.max(1);
            share.push(object.clone());
        }
    }
    let ordered = |(_, mut share): (u64, Vec<Share>)| {
        share.sort_by_key(|object| object.number);
        share
    };
    shares.into_iter().map(ordered).collect()
}

/// A hash over what the state and the queries of a job are.
fn plan_of(job: &Job) -> String {
    let mut hash = Sha256::new();
    hash.update(job.plan.explain());
    for (fingerprint, _) in job.plan.fingerprints() {
        hash.update(fingerprint);
    }
    hex::encode(&hash.finalize()[..16])
}
