//! Frames of Phoenix channels, in both forms that its serializers have: objects (`vsn=1.0.0`, also where a client names
//! none) and arrays (`vsn=2.0.0`).

use std::sync::Arc;

use serde_json::{Value, json};

/// Which form a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `{"topic":…,"event":…,"payload":…,"ref":…}`
    V1,
    /// `[join_ref, ref, topic, event, payload]`
    V2,
}

impl Version {
    /// As the query of a handshake asks for it.
    pub(super) fn of_head(head: &str) -> Self {
        let line = head.lines().next().unwrap_or_default();
        if line.contains("vsn=2.") { Self::V2 } else { Self::V1 }
    }
}

/// A frame that a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Reference of the join that it belongs to.
    pub join_ref: Value,
    /// Its own reference.
    pub reference: Value,
    /// The channel.
    pub topic: Arc<str>,
    /// What it says.
    pub event: String,
    /// What comes with it.
    pub payload: Value,
}

impl Frame {
    /// Reads a frame as Phoenix does: the form is that of the connection.
    pub(super) fn parse(text: &str, version: Version) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let part = |array: usize, object: &str| match version {
            Version::V1 => value.get(object).cloned().unwrap_or_default(),
            Version::V2 => value.get(array).cloned().unwrap_or_default(),
        };
        let well_formed = match version {
            Version::V1 => value.is_object(),
            Version::V2 => value.as_array().is_some_and(|parts| parts.len() == 5),
        };
        let (topic, event) = (part(2, "topic"), part(3, "event"));
        if !well_formed {
            return None;
        }
        Some(Self {
            join_ref: part(0, "join_ref"),
            reference: part(1, "ref"),
            topic: topic.as_str()?.into(),
            event: event.as_str()?.to_owned(),
            payload: part(4, "payload"),
        })
    }

    /// The reply to this frame.
    pub(super) fn reply(&self, version: Version, status: &str, response: &Value) -> String {
        let payload = json!({"status": status, "response": response}).to_string();
        text(version, &self.join_ref, &self.reference, &self.topic, "phx_reply", &payload)
    }
}

/// A frame as text; the payload byte for byte.
pub(super) fn text(
    version: Version,
    join_ref: &Value,
    reference: &Value,
    topic: &str,
    event: &str,
    payload: &str,
) -> String {
    let (topic, event) = (Value::from(topic), Value::from(event));
    match version {
        Version::V1 => format!(r#"{{"event":{event},"payload":{payload},"ref":{reference},"topic":{topic}}}"#),
        Version::V2 => format!("[{join_ref},{reference},{topic},{event},{payload}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_as_phoenix_has_them() {
        let v2 = r#"["1","2","collection:*","phx_join",{}]"#;
        let frame = Frame::parse(v2, Version::V2).expect("a frame");
        assert_eq!(
            frame.reply(Version::V2, "ok", &json!({})),
            r#"["1","2","collection:*","phx_reply",{"response":{},"status":"ok"}]"#
        );
        let v1 = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":0}"#;
        let frame = Frame::parse(v1, Version::V1).expect("a frame");
        let reply = r#"{"event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":0,"topic":"phoenix"}"#;
        assert_eq!(frame.reply(Version::V1, "ok", &json!({})), reply);
        assert_eq!(Frame::parse(v1, Version::V2), None);
        assert_eq!(Frame::parse(v2, Version::V1), None);
        assert_eq!(Version::of_head("GET /socket/websocket?token=k&vsn=2.0.0 HTTP/1.1\r\n"), Version::V2);
        assert_eq!(Version::of_head("GET /socket/websocket?token=k HTTP/1.1\r\nX: vsn=2.\r\n"), Version::V1);
    }
}
