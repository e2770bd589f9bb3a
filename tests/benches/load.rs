//! What the benchmark needs beside the binary: signed events by the hundred thousand, and the bare rate of librdkafka.
//!
//!     load generate COUNT FILE       writes COUNT events as JSON lines, signed, all genuine
//!     load market COUNT SEED FILE    writes COUNT frames of made-up traffic of OpenSea's stream, a line each
//!     load decode FILE                makes rows of such frames on one thread and says how fast
//!     load consume BROKERS TOPIC     reads a topic to its end with librdkafka alone and says how fast
//!     load fill COUNT DATA_DIR       fills an embedded log with COUNT records that have nothing but an id
//!     load crowd TIDEGATE RELAYS EVENTS COPIES [OPTION…]   has TIDEGATE follow RELAYS relays, each event on COPIES of
//!                                                          them, with further options such as --sightings
//!     load lake EVENTS MARKET SIGHTINGS PLACE   lands a made-up lake of so many events, market events and deliveries of
//!                                                events in a directory or at s3://bucket/prefix, by the AWS_… variables

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use event::{Clock, EventId, Origin, Table};
use ingest::{IntakeSettings, create_topics};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Prefix;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use relay::Generate;
use relay::generate::write_jsonl;
use tests::big_lake::BigLake;
use tests::crowd::Crowd;
use tests::traffic::Traffic;
use topic::{EmbeddedLog, Log, Record};

/// Everybody's big lake is the same.
const LAKE_SEED: u64 = 7;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["generate", count, rate, file] => generate(count.parse()?, rate.parse()?, file),
        ["market", count, seed, file] => market(count.parse()?, seed.parse()?, file),
        ["decode", file] => decode(Path::new(file)),
        ["consume", brokers, topic] => consume(brokers, topic),
        ["fill", count, dir] => tokio::runtime::Runtime::new()?.block_on(fill(count.parse()?, Path::new(dir))),
        ["crowd", tidegate, relays, events, copies, options @ ..] => {
            let crowd = Crowd { relays: relays.parse()?, events: events.parse()?, copies: copies.parse()? };
            follow(tidegate, crowd, options)
        }
        ["lake", events, market, sightings, place] => {
            let (events, market, sightings) = (events.parse()?, market.parse()?, sightings.parse()?);
            let lake = BigLake { seed: LAKE_SEED, events, market, sightings };
            tokio::runtime::Runtime::new()?.block_on(land(lake, place))
        }
        // `cargo test --benches` and `cargo bench` without arguments have nothing to do here.
        [] => Ok(()),
        other => {
            bail!(
                "`{}` is none of generate, market, decode, consume, fill, crowd and lake with their arguments",
                other.join(" ")
            )
        }
    }
}

fn generate(count: usize, rate: f64, file: &str) -> Result<()> {
    let settings = Generate { late: 0.0, future: 0.0, forged: 0.0, rate, authors: 5000, ..Generate::default() };
    let mut out = BufWriter::new(File::create(file).with_context(|| format!("could not create `{file}`"))?);
    write_jsonl(settings, count, &mut out)?;
    Ok(())
}

fn market(count: usize, seed: u64, file: &str) -> Result<()> {
    let mut out = BufWriter::new(File::create(file).with_context(|| format!("could not create `{file}`"))?);
    Traffic::write(seed, count, &mut out)?;
    Ok(out.flush()?)
}

/// Rows of the table `market` from frames in memory, as the lander, a stream and JSON lines in the lake have them made.
fn decode(file: &Path) -> Result<()> {
    const BATCH_ROWS: usize = 8 * 1024;
    let frames = std::fs::read(file).with_context(|| format!("could not read `{}`", file.display()))?;
    let mut builder = Table::Market.builder();
    let (mut rows, mut others) = (0_u64, 0_u64);
    let began = Instant::now();
    for frame in frames.split(|byte| *byte == b'\n').filter(|frame| !frame.is_empty()) {
        match builder.take(frame, &Origin::default()) {
            Ok(_) => rows += 1,
            Err(_) => others += 1,
        }
        if builder.len() >= BATCH_ROWS {
            drop(builder.finish());
        }
    }
    let secs = began.elapsed().as_secs_f64();
    #[expect(clippy::print_stdout, reason = "a line for people is what this is for")]
    {
        println!(
            "{rows} rows, {others} others, {} bytes, {secs:.2} s, {:.0} events/s",
            frames.len(),
            rows as f64 / secs
        );
    }
    Ok(())
}

/// A raw topic as it is after so many events, as far as known ids go.
async fn fill(count: u64, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir.join("log"))?;
    let log = EmbeddedLog::open(&dir.join("log"), Clock::system())?;
    let intake = IntakeSettings::default();
    create_topics(&log, &intake).await?;
    let mut writer = log.writer(None).await?;
    let mut random = StdRng::seed_from_u64(count);
    let mut left = count;
    while left > 0 {
        let lot = left.min(20_000);
        let record = |_| {
            let id = EventId(random.random());
            Record { key: Some(id.to_string().into()), value: Some("{}".into()), ..Record::default() }
        };
        writer.send(&intake.topic, (0..lot).map(record).collect()).await?;
        writer.flush().await?;
        left -= lot;
    }
    Ok(())
}

fn follow(tidegate: &str, crowd: Crowd, options: &[&str]) -> Result<()> {
    let rows = tokio::runtime::Runtime::new()?.block_on(crowd.measure(Path::new(tidegate), options))?;
    #[expect(clippy::print_stdout, reason = "a table for people is what this is for")]
    {
        println!(
            "| {} relays, each event on {} | frames | wall s | CPU s | resident MiB |",
            crowd.relays, crowd.copies
        );
        println!("|---|---|---|---|---|\n{rows}");
    }
    Ok(())
}

/// A made-up lake at a place that is named as tidegate's `--lake` names it.
async fn land(lake: BigLake, place: &str) -> Result<()> {
    let (store, prefix): (Arc<dyn ObjectStore>, Prefix) = match place.strip_prefix("s3://") {
        Some(rest) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true).build()?;
            (Arc::new(store), Prefix::parse(prefix)?)
        }
        None => {
            std::fs::create_dir_all(place).with_context(|| format!("could not make `{place}`"))?;
            (Arc::new(LocalFileSystem::new_with_prefix(place)?), Prefix::default())
        }
    };
    let began = Instant::now();
    let landed = lake.land(store, prefix).await?;
    let secs = began.elapsed().as_secs_f64();
    #[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a line for people is what this is for")]
    {
        let (rows, objects, bytes) = (landed.landed_rows, landed.landed_objects, landed.landed_bytes);
        println!("{rows} rows, {objects} objects, {bytes} bytes, {secs:.1} s, {:.0} rows/s", rows as f64 / secs);
    }
    Ok(())
}

/// Every partition from its start to its end, one message at a time, nothing done with it.
fn consume(brokers: &str, topic: &str) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tidegate-bench")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions = metadata.topics().first().context("no such topic")?.partitions().len();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, i32::try_from(partition)?, Offset::Beginning)?;
    }
    let began = Instant::now();
    consumer.assign(&assignment)?;
    let (mut records, mut bytes, mut ended) = (0_u64, 0_u64, 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload_len() as u64;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(error.into()),
            None => bail!("nothing came for ten seconds"),
        }
    }
    let secs = began.elapsed().as_secs_f64();
    #[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a figure for people is what this is for")]
    {
        println!("{records} records, {bytes} bytes, {secs:.2} s, {:.0} records/s", records as f64 / secs);
    }
    Ok(())
}
