//! Every type that a job can put into a row, as JSON and as display text.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::Int32Type;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, LargeStringArray, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StringViewArray, StructArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field};

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("a batch")
}

fn rows(name: &str, array: ArrayRef) -> Vec<String> {
    json_rows(&batch(vec![(name, array)])).expect("rows")
}

fn shown(array: ArrayRef) -> Vec<Option<String>> {
    let batch = display_batch(&batch(vec![("x", array)])).expect("display");
    batch.column(0).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn micros(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

fn tags() -> ArrayRef {
    let mut tags = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    tags.values().values().append_value("t");
    tags.values().values().append_value("a\"b");
    tags.values().append(true);
    tags.values().append(true);
    tags.append(true);
    tags.append(false);
    tags.append(true);
    Arc::new(tags.finish())
}

#[test]
fn a_row_is_one_object_with_its_keys_in_column_order() {
    let batch = batch(vec![
        ("window_start", micros(vec![Some(1_700_000_000_000_000), Some(1_700_000_000_500_000), None])),
        ("kind", Arc::new(Int32Array::from(vec![Some(1), None, Some(7)]))),
        ("say \"it\"", Arc::new(StringArray::from(vec![Some("a\n\u{1}\\"), Some("é\u{2028}"), None]))),
    ]);
    assert_eq!(
        json_rows(&batch).expect("rows"),
        [
            r#"{"window_start":"2023-11-14T22:13:20Z","kind":1,"say \"it\"":"a\n\u0001\\"}"#,
            "{\"window_start\":\"2023-11-14T22:13:20.500Z\",\"kind\":null,\"say \\\"it\\\"\":\"é\u{2028}\"}",
            r#"{"window_start":null,"kind":7,"say \"it\"":null}"#,
        ]
    );
}

#[test]
fn text_is_escaped_as_serde_json_escapes_it() {
    let text: String = (0_u8..=0x7f).map(char::from).chain("äß🦀\u{2029}".chars()).collect();
    let mut out = String::new();
    write_json_text(&text, &mut out);
    assert_eq!(out, serde_json::to_string(&text).expect("text"));
}

#[test]
fn integers_beyond_two_to_the_53_are_strings() {
    let safe = 1_i64 << 53;
    let array = Int64Array::from(vec![safe, safe + 1, -safe, -safe - 1, i64::MIN, 0]);
    let expected = [
        "9007199254740992",
        "\"9007199254740993\"",
        "-9007199254740992",
        "\"-9007199254740993\"",
        "\"-9223372036854775808\"",
        "0",
    ];
    assert_eq!(rows("n", Arc::new(array)), expected.map(|n| format!("{{\"n\":{n}}}")));
    assert_eq!(
        rows("n", Arc::new(UInt64Array::from(vec![u64::MAX, 5]))),
        [r#"{"n":"18446744073709551615"}"#, r#"{"n":5}"#]
    );
}

#[test]
fn floats_are_their_shortest_text_and_json() {
    let values = vec![0.1, 1.0, 1e300, -0.0, f64::NAN, f64::INFINITY, 5e-324];
    let lines = rows("x", Arc::new(Float64Array::from(values.clone())));
    assert_eq!(lines[..5], [r#"{"x":0.1}"#, r#"{"x":1.0}"#, r#"{"x":1e300}"#, r#"{"x":-0.0}"#, r#"{"x":null}"#]);
    for (line, value) in lines.iter().zip(values).filter(|(_, value)| value.is_finite()) {
        let read: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(read["x"].as_f64().map(f64::to_bits), Some(value.to_bits()), "{line}");
    }
    assert_eq!(rows("x", Arc::new(Float32Array::from(vec![0.1_f32]))), [r#"{"x":0.1}"#]);
}

#[test]
fn bytes_are_lower_case_hex() {
    let fixed = FixedSizeBinaryArray::try_from_iter([[0xAB_u8, 0x01].as_slice()].into_iter()).expect("bytes");
    assert_eq!(rows("id", Arc::new(fixed)), [r#"{"id":"ab01"}"#]);
    let binary: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\xff".as_slice()), Some(b""), None]));
    assert_eq!(rows("b", Arc::clone(&binary)), [r#"{"b":"ff"}"#, r#"{"b":""}"#, r#"{"b":null}"#]);
    assert_eq!(shown(binary), [Some("ff".into()), Some(String::new()), None]);
}

#[test]
fn instants_keep_their_digits_and_never_wrap() {
    let array = micros(vec![Some(0), Some(-1), Some(1_725_194_263_529_000_000), Some(i64::MAX)]);
    let expected =
        ["1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "+56639-03-26T04:45:29Z", "9223372036854775807"];
    assert_eq!(shown(Arc::clone(&array)), expected.map(|text| Some(text.to_owned())));
    assert_eq!(rows("t", array)[2], r#"{"t":"+56639-03-26T04:45:29Z"}"#);
    let nanos = TimestampNanosecondArray::from(vec![1_000_000_000, 1_500_000_001]);
    assert_eq!(
        rows("t", Arc::new(nanos)),
        [r#"{"t":"1970-01-01T00:00:01Z"}"#, r#"{"t":"1970-01-01T00:00:01.500000001Z"}"#]
    );
    assert_eq!(rows("d", Arc::new(Date32Array::from(vec![0, -1]))), [r#"{"d":"1970-01-01"}"#, r#"{"d":"1969-12-31"}"#]);
}

#[test]
fn decimals_are_strings() {
    let array = Decimal128Array::from(vec![12_345, -5]).with_precision_and_scale(20, 3).expect("a decimal");
    assert_eq!(rows("wei", Arc::new(array)), [r#"{"wei":"12.345"}"#, r#"{"wei":"-0.005"}"#]);
}

#[test]
fn lists_structs_and_dictionaries_nest() {
    assert_eq!(rows("tags", tags()), [r#"{"tags":[["t","a\"b"],[]]}"#, r#"{"tags":null}"#, r#"{"tags":[]}"#]);
    assert_eq!(shown(tags()), [Some(r#"[["t","a\"b"],[]]"#.into()), None, Some("[]".into())]);

    let window = StructArray::from(vec![
        (
            Arc::new(Field::new("start", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("open", DataType::Boolean, true)),
            Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef,
        ),
    ]);
    assert_eq!(
        rows("w", Arc::new(window)),
        [r#"{"w":{"start":1,"open":true}}"#, r#"{"w":{"start":null,"open":false}}"#]
    );

    let phases: DictionaryArray<Int32Type> = [Some("live"), None, Some("live")].into_iter().collect();
    assert_eq!(rows("p", Arc::new(phases.clone())), [r#"{"p":"live"}"#, r#"{"p":null}"#, r#"{"p":"live"}"#]);
    assert_eq!(shown(Arc::new(phases)), [Some("live".into()), None, Some("live".into())]);
}

#[test]
fn a_slice_prints_its_own_rows() {
    let whole = batch(vec![("tags", tags()), ("n", Arc::new(Int32Array::from(vec![1, 2, 3])))]);
    assert_eq!(json_rows(&whole.slice(2, 1)).expect("rows"), [r#"{"tags":[],"n":3}"#]);
}

#[test]
fn numbers_and_text_stay_as_they_are_on_display() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![i64::MAX]))),
        ("s", Arc::new(StringViewArray::from(vec!["a\"b"]))),
        ("l", Arc::new(LargeStringArray::from(vec!["c"]))),
    ];
    let before = batch(columns);
    let after = display_batch(&before).expect("display");
    for column in 0..3 {
        assert_eq!(after.column(column).data_type(), before.column(column).data_type());
    }
    assert_eq!(json_rows(&before).expect("rows"), [r#"{"n":"9223372036854775807","s":"a\"b","l":"c"}"#]);
}

#[test]
fn rows_without_columns_are_empty_objects() {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(2));
    let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).expect("empty");
    assert_eq!(json_rows(&empty).expect("rows"), ["{}", "{}"]);
    assert_eq!(display_batch(&empty).expect("display").num_rows(), 2);
}
