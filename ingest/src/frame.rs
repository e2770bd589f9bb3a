//! The event inside a relay's frame, where frames stand in files: dumps of relays and of clients hold them.

use serde_json::value::RawValue;

/// The third element of `["EVENT",sub,event]`, or the second of `["EVENT",event]`, byte for byte; anything else as it is.
///
/// ```
/// use ingest::event_in;
/// assert_eq!(event_in(br#"["EVENT","sub",{"kind":1}]"#), br#"{"kind":1}"#);
/// assert_eq!(event_in(br#"["EVENT", {"kind":1} ]"#), br#"{"kind":1}"#);
/// assert_eq!(event_in(br#"["NOTICE","hi"]"#), br#"["NOTICE","hi"]"#);
/// assert_eq!(event_in(br#"{"kind":1}"#), br#"{"kind":1}"#);
/// ```
#[must_use]
pub fn event_in(line: &[u8]) -> &[u8] {
    let inside = || {
        let elements: Vec<&RawValue> = serde_json::from_slice(line).ok()?;
        let event = match elements.as_slice() {
            [label, event] | [label, _, event] if label.get() == "\"EVENT\"" => event.get(),
            _ => return None,
        };
        event.starts_with('{').then_some(event.as_bytes())
    };
    match line.first() {
        Some(b'[') => inside().unwrap_or(line),
        _ => line,
    }
}
