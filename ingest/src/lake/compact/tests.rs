//! Raw objects in, one file out: nothing lost, nothing twice, nothing altered, always the same bytes.

#![allow(clippy::cast_possible_truncation, reason = "numbers are small here")]

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use event::Table;
use event::layout::{HEADER_PHASE, HEADER_RELAY, LakeFormat, LakeKey};
use event::manifest::{CoveredPartition, CoveredRange, Manifest};
use event::schema::{CREATED_AT, ID, KAFKA_OFFSET, KAFKA_PARTITION, PHASE, RAW, RELAY};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use topic::{Header, StoredRecord};

use super::build::{Built, Rules, build};
use super::input::Input;
use super::plan;
use super::sort::{Key, Sorter};
use crate::error::{ErrorKind, Result};
use crate::lake::catalog::RawObject;
use crate::lake::object::OpenObject;

const STRICT: Rules = Rules { allow_duplicates: false, drop_unreadable: false };
const HOUR: i64 = 500_000;

/// An event of author and text `number`, with everything but a true id and signature: a lander believes its topic.
fn event(number: u64, created_at: i64) -> String {
    format!(
        r#"{{"id":"{number:064x}","pubkey":"{number:064x}","created_at":{created_at},"kind":1, "tags":[["t","{number}"]],"content":"é{number}","sig":"{number:0128x}"}}"#
    )
}

fn key(partition: i32, start: i64, hour: i64, format: LakeFormat) -> LakeKey {
    LakeKey { topic: "t".to_owned(), partition, start, hour, format }
}

/// A raw object as the lander makes it of these values.
fn input(format: LakeFormat, partition: i32, start: i64, values: &[String]) -> Input {
    let mut open = OpenObject::try_new(Table::Events, format, start, HOUR).expect("an object");
    for (offset, value) in (start..).zip(values) {
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.to_owned().into() };
        let record = StoredRecord {
            partition,
            offset,
            timestamp_ms: HOUR * 3_600_000 + offset,
            key: None,
            value: Some(value.clone().into()),
            headers: vec![header(HEADER_RELAY, "wss://relay.example/"), header(HEADER_PHASE, "live")],
        };
        open.append(&record, record.timestamp_ms).expect("appended");
    }
    let finished = open.finish("t", partition, start + values.len() as i64).expect("finished");
    let key = key(partition, start, HOUR, format);
    Input { path: Path::from(key.to_string()), key, bytes: finished.bytes }
}

fn built(inputs: &[Input], covered: &[CoveredPartition], rules: Rules) -> Result<Built> {
    build(("t", Table::Events), inputs, covered, rules, &std::env::temp_dir())
}

/// Time, id, partition, offset, raw: what a file holds, in its order.
fn rows(built: &Built) -> Vec<(i64, Vec<u8>, i32, i64, String)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(built.bytes.clone()).expect("Parquet").build().expect("rows");
    let of = |batch: RecordBatch| {
        let column = |name: &str| batch.column_by_name(name).expect("a column");
        let text = |name: &str, row| column(name).as_string::<i32>().value(row).to_owned();
        let row = |row: usize| {
            assert_eq!((text(RELAY, row), text(PHASE, row)), ("wss://relay.example/".into(), "live".into()));
            (
                column(CREATED_AT).as_primitive::<TimestampMicrosecondType>().value(row),
                column(ID).as_fixed_size_binary().value(row).to_vec(),
                column(KAFKA_PARTITION).as_primitive::<Int32Type>().value(row),
                column(KAFKA_OFFSET).as_primitive::<Int64Type>().value(row),
                String::from_utf8(column(RAW).as_binary::<i32>().value(row).to_vec()).expect("text"),
            )
        };
        (0..batch.num_rows()).map(row).collect::<Vec<_>>()
    };
    reader.flat_map(|batch| of(batch.expect("a batch"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_has_every_row_once_in_order_and_the_same_bytes_each_time(
        times in prop::collection::vec(0_i64..50, 1..120),
        parts in prop::collection::vec(1_usize..30, 1..6),
    ) {
        let mut numbered: Vec<(u64, i64)> = (0..).zip(times).collect();
        let mut expected: Vec<(i64, Vec<u8>, i32, i64, String)> = Vec::new();
        let (mut inputs, mut starts) = (Vec::new(), [0_i64; 2]);
        for (at, part) in parts.iter().enumerate() {
            let (taken, partition) = (numbered.split_off(numbered.len().saturating_sub(*part)), at % 2);
            let values: Vec<String> = taken.iter().map(|(number, time)| event(*number, *time)).collect();
            let start = starts[partition];
            for ((offset, value), (number, time)) in (start..).zip(&values).zip(&taken) {
                let id = [vec![0; 24], number.to_be_bytes().to_vec()].concat();
                expected.push((time * 1_000_000, id, partition as i32, offset, value.clone()));
            }
            inputs.push(input(LakeFormat::Parquet, partition as i32, start, &values));
            starts[partition] += taken.len() as i64;
        }
        inputs.sort_by_key(|input| (input.key.partition, input.key.start));
        expected.sort();
        let file = built(&inputs, &[], STRICT).expect("built");
        prop_assert_eq!(rows(&file), expected);
        prop_assert_eq!(file.rows, starts.iter().sum::<i64>() as u64);
        prop_assert_eq!(&built(&inputs, &[], STRICT).expect("built").bytes, &file.bytes);
        for range in &file.ranges {
            prop_assert_eq!((range.start, range.end), (0, starts[range.partition as usize]));
        }
    }

    #[test]
    fn rows_that_are_sorted_in_files_come_as_those_in_memory(times in prop::collection::vec(0_i64..20, 1..4_000)) {
        let values: Vec<String> = times.iter().zip(0..).map(|(time, at)| event(at, *time)).collect();
        let parts: Vec<Input> =
            values.chunks(700).zip(0..).map(|(part, at)| input(LakeFormat::Parquet, at, 0, part)).collect();
        let sorted = |run_bytes| {
            let scratch = std::env::temp_dir();
            let mut sorter = Sorter::new(Table::Events, &scratch, run_bytes);
            for part in &parts {
                part.read(Table::Events, &mut |batch| sorter.push(batch)).expect("read");
            }
            let mut all: Vec<Key> = Vec::new();
            sorter.finish(&mut |batch, keys| {
                assert_eq!(batch.num_rows(), keys.len());
                all.extend(keys);
                Ok(())
            }).expect("sorted");
            all
        };
        let in_memory = sorted(usize::MAX);
        prop_assert!(in_memory.is_sorted() && in_memory.len() == times.len());
        // Every part is a run in a file of its own but the last.
        prop_assert_eq!(sorted(1), in_memory);
    }
}

#[test]
fn an_event_that_is_there_twice_is_an_error_unless_it_may_be() {
    let twice = [
        input(LakeFormat::Parquet, 0, 0, &[event(1, 5), event(2, 5)]),
        input(LakeFormat::Parquet, 1, 7, &[event(2, 5)]),
    ];
    let refused = built(&twice, &[], STRICT).expect_err("twice");
    assert_eq!(refused.kind(), ErrorKind::Data);
    let words = refused.to_string();
    assert!(words.contains(&format!("{:064x}", 2)), "{words}");
    assert!(words.contains("partition 0 offset 1") && words.contains("partition 1 offset 7"), "{words}");
    let kept = built(&twice, &[], Rules { allow_duplicates: true, ..STRICT }).expect("built");
    assert_eq!((kept.rows, kept.duplicates), (3, 1));
}

#[test]
fn sightings_are_sorted_by_receipt_and_one_event_may_have_many() {
    let sighting = |number: u8, received_at_ms: i64, created_at: Option<i64>| {
        let (id, relay, phase) = (event::EventId([number; 32]), "wss://a".into(), "live".into());
        event::Sighting { id, relay, received_at_ms, phase, first: created_at.is_some(), created_at }.to_json()
    };
    let values =
        [sighting(9, 5_000, None), sighting(2, 7_000, Some(3)), sighting(9, 4_000, Some(1)), sighting(1, 5_000, None)];
    for format in [LakeFormat::Parquet, LakeFormat::JsonGz] {
        let mut open = OpenObject::try_new(Table::Sightings, format, 0, HOUR).expect("an object");
        for (offset, value) in (0..).zip(&values) {
            let value = Some(value.clone().into());
            let record = StoredRecord { partition: 0, offset, timestamp_ms: 1, key: None, value, headers: Vec::new() };
            assert_eq!(open.append(&record, 1).expect("appended"), None);
        }
        let key = LakeKey { topic: "t.sightings".into(), ..key(0, 0, HOUR, format) };
        let bytes = open.finish(&key.topic, 0, 4).expect("finished").bytes;
        let object = Input { path: Path::from(key.to_string()), key, bytes };
        let file =
            build(("t.sightings", Table::Sightings), &[object], &[], STRICT, &std::env::temp_dir()).expect("built");
        assert_eq!((file.rows, file.event_time), (4, Some((4_000_000, 7_000_000))), "{format:?}");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes).expect("Parquet").build().expect("rows");
        let offsets = |batch: RecordBatch| {
            assert_eq!(batch.schema().fields(), Table::Sightings.schema().fields());
            batch.column_by_name(KAFKA_OFFSET).expect("a column").as_primitive::<Int64Type>().values().to_vec()
        };
        let order: Vec<i64> = reader.flat_map(|batch| offsets(batch.expect("a batch"))).collect();
        assert_eq!(order, [2, 3, 0, 1], "{format:?}");
    }
}

#[test]
fn a_line_without_an_event_is_not_dropped_unasked() {
    let mut lines = input(LakeFormat::JsonGz, 0, 4, &[event(1, 5), "{\"type\":\"heartbeat\"}".into(), event(2, 6)]);
    lines.path = Path::from("the-object");
    let refused = built(std::slice::from_ref(&lines), &[], STRICT).expect_err("a heartbeat");
    assert!(refused.to_string().contains("`the-object` holds 1 lines"), "{refused}");
    let file = built(&[lines], &[], Rules { drop_unreadable: true, ..STRICT }).expect("built");
    assert_eq!((file.rows, file.unreadable), (2, 1));
    assert_eq!(file.ranges, [CoveredRange { partition: 0, start: 4, end: 7 }]);
    assert_eq!(file.event_time, Some((5_000_000, 6_000_000)));
}

#[test]
fn what_is_covered_follows_what_was_and_keeps_gaps_of_parquet() {
    let covered = |end| CoveredPartition { partition: 0, end, received_max_ms: 9 };
    let one = |format, start| input(format, 0, start, &[event(start as u64, 5)]);
    let ranges = |inputs: &[Input], end| {
        let ranges = built(inputs, &[covered(end)], STRICT).expect("built").ranges;
        ranges.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>()
    };
    use LakeFormat::{JsonGz, Parquet};
    assert_eq!(ranges(&[one(Parquet, 3), one(Parquet, 4)], 3), [(3, 5)]);
    assert_eq!(ranges(&[one(Parquet, 3), one(Parquet, 6)], 3), [(3, 4), (6, 7)]);
    assert_eq!(ranges(&[one(JsonGz, 5), one(JsonGz, 8)], 3), [(3, 9)]);
    let overlap = built(&[one(Parquet, 3)], &[covered(4)], STRICT).expect_err("covered already");
    assert_eq!(overlap.kind(), ErrorKind::Data);
}

#[test]
fn an_object_that_is_not_what_its_footer_says_is_refused() {
    let whole = input(LakeFormat::Parquet, 0, 0, &[event(1, 5), event(2, 5)]);
    let other = input(LakeFormat::Parquet, 0, 0, &[event(1, 5), event(3, 5)]);
    // The rows of one with the footer of the other: as long as each other, and Parquet in form.
    assert_eq!(whole.bytes.len(), other.bytes.len());
    let footer = whole.bytes.windows(4).rposition(|four| four == b"PAR1").expect("an end");
    let length = u32::from_le_bytes(whole.bytes[footer - 4..footer].try_into().expect("four bytes")) as usize;
    let at = whole.bytes.len() - 8 - length;
    let mixed = [&whole.bytes[..at], &other.bytes[at..]].concat();
    let refused = built(&[Input { bytes: mixed.into(), ..whole }], &[], STRICT).expect_err("mixed");
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(refused.to_string().contains("damaged"), "{refused}");
}

#[test]
fn groups_are_closed_hours_of_a_day_up_to_the_target() {
    let raw = |partition, start, hour| RawObject {
        key: key(partition, start, hour, LakeFormat::Parquet),
        path: Path::default(),
        bytes: 10,
    };
    let day = 24 * 20_000;
    // Partition 0 has an object that a manifest covers, and one of an hour that goes back; partition 1 lags.
    let objects = vec![
        raw(0, 0, day),
        raw(0, 5, day),
        raw(0, 9, day - 3),
        raw(0, 12, day + 2),
        raw(0, 20, day + 9),
        raw(1, 0, day - 1),
    ];
    let mut manifest = Manifest::empty("t");
    manifest.cover(CoveredPartition { partition: 0, end: 5, received_max_ms: 0 });
    let groups = |target| {
        let groups = plan(&manifest, objects.clone(), day + 9, target);
        let place = |(hour, object): &(i64, RawObject)| (hour - day, object.key.partition, object.key.start);
        groups.iter().map(|group| group.iter().map(place).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(groups(100), [vec![(-1, 1, 0)], vec![(0, 0, 5), (0, 0, 9), (2, 0, 12)]]);
    assert_eq!(groups(20), [vec![(-1, 1, 0)], vec![(0, 0, 5), (0, 0, 9)], vec![(2, 0, 12)]]);
}
