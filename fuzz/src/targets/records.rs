//! What lies in the lake and in topics, as another program may have written it there.

use event::manifest::{FileName, Manifest, manifest_version};
use event::table::RowBuilder as _;
use event::{Origin, Sighting};

/// A manifest of the lake.
pub fn manifest(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    let _ = (FileName::version_of(&name), manifest_version(&name));
    let Ok(mut manifest) = Manifest::parse(bytes) else { return };
    assert_eq!(Manifest::parse(&manifest.to_json()).as_ref(), Ok(&manifest));
    for file in &manifest.files {
        let _ = FileName::version_of(&file.name);
        for range in &file.ranges {
            assert!(range.start >= range.end || manifest.covered_since(range.partition, range.start).is_some());
            let _ = manifest.covers(range.partition, range.end);
        }
    }
    for covered in manifest.partitions.clone() {
        manifest.cover(covered);
        assert!(manifest.covered(covered.partition).is_some_and(|now| now.end >= covered.end));
    }
}

/// The value of a record of the sightings topic.
pub fn sighting(bytes: &[u8]) {
    let origin = Origin { relay: None, received_at_ms: None, phase: None, partition: 0, offset: 0 };
    let mut rows = event::sighting::SightingBatchBuilder::default();
    let taken = rows.take(bytes, &origin).is_ok();
    let read = Sighting::parse(bytes);
    assert_eq!(taken, read.is_ok());
    assert_eq!(rows.finish().num_rows(), usize::from(taken));
    let Ok(sighting) = read else { return };
    let json = sighting.to_json();
    assert_eq!(Sighting::parse(json.as_bytes()).as_ref(), Ok(&sighting));
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("what we read is JSON");
    // Of a key that stands twice, others take the last.
    assert_eq!(value["received_at"].as_i64(), Some(sighting.received_at_ms));
    assert_eq!(value["relay"].as_str(), Some(&*sighting.relay));
    assert_eq!(value["first"].as_bool(), Some(sighting.first));
}
