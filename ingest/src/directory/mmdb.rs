//! A writer of tiny MaxMind DB files for tests: IPv4 networks, any record, both shapes.

use serde_json::{Value, json};

/// When the databases were built, seconds since 1970.
pub(super) const BUILT: i64 = 1_700_000_000;

/// A database in which each network, as `[192, 0, 2, 0]` and its length in bits, has its record.
pub(super) fn database(networks: &[([u8; 4], u8, Value)]) -> Vec<u8> {
    // A record of the tree is a node, nothing, or a place in the data.
    const NOTHING: usize = usize::MAX;
    let mut nodes = vec![[NOTHING; 2]];
    let (mut data, mut leaves) = (Vec::new(), Vec::new());
    for (address, bits, record) in networks {
        let address = u32::from_be_bytes(*address);
        let mut node = 0;
        for depth in 0..*bits {
            let side = (address >> (31 - depth)) as usize & 1;
            if depth + 1 == *bits {
                leaves.push((node, side, data.len()));
            } else {
                if nodes[node][side] == NOTHING {
                    nodes.push([NOTHING; 2]);
                    nodes[node][side] = nodes.len() - 1;
                }
                node = nodes[node][side];
            }
        }
        encode(&mut data, record);
    }
    let count = nodes.len();
    for record in nodes.iter_mut().flatten().filter(|record| **record == NOTHING) {
        *record = count;
    }
    for (node, side, at) in leaves {
        nodes[node][side] = count + 16 + at;
    }
    let mut file: Vec<u8> = nodes.iter().flatten().flat_map(|record| record.to_be_bytes()[5..].to_vec()).collect();
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    encode(
        &mut file,
        &json!({
            "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": BUILT,
            "database_type": "Test", "description": {"en": "made up"}, "ip_version": 4, "languages": ["en"],
            "node_count": count, "record_size": 24,
        }),
    );
    file
}

fn encode(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => {
            control(out, 2, text.len());
            out.extend(text.as_bytes());
        }
        Value::Number(number) if number.is_u64() => whole(out, number.as_u64().expect("it is one"), UINT32),
        Value::Number(number) => {
            control(out, 3, 8);
            out.extend(number.as_f64().expect("a number").to_be_bytes());
        }
        Value::Object(map) => {
            control(out, 7, map.len());
            for (key, value) in map {
                encode(out, &json!(key));
                // The fields of the metadata have a type each.
                match (key.as_str(), value.as_u64()) {
                    ("build_epoch", Some(number)) => whole(out, number, UINT64),
                    (
                        "binary_format_major_version" | "binary_format_minor_version" | "ip_version" | "record_size",
                        Some(number),
                    ) => whole(out, number, UINT16),
                    _ => encode(out, value),
                }
            }
        }
        Value::Array(items) => {
            control(out, 11, items.len());
            items.iter().for_each(|item| encode(out, item));
        }
        Value::Bool(flag) => control(out, 14, usize::from(*flag)),
        Value::Null => panic!("the format has no null"),
    }
}

const UINT16: u8 = 5;
const UINT32: u8 = 6;
const UINT64: u8 = 9;

fn whole(out: &mut Vec<u8>, number: u64, sort: u8) {
    let bytes: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    control(out, sort, bytes.len());
    out.extend(bytes);
}

fn control(out: &mut Vec<u8>, sort: u8, size: usize) {
    assert!(size < 29, "longer values are not needed here");
    let size = u8::try_from(size).expect("it is short");
    if sort < 8 {
        out.push(sort << 5 | size);
    } else {
        out.extend([size, sort - 7]);
    }
}
