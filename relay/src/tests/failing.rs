//! Every fault on demand, seen from the other side; and the reader that is too slow.

use super::*;
use crate::Faults;

async fn faulty(events: &[Event], faults: Faults) -> (Running, Client) {
    let relay = holding(events, Settings { faults, ..Settings::default() }).await;
    let client = Client::connect(relay.addr).await;
    (relay, client)
}

/// Frames until the relay ends the connection without a close frame.
async fn until_dropped(client: &mut Client) -> Vec<Message> {
    let mut frames = Vec::new();
    while let Some(frame) = client.frame().await {
        assert!(!frame.is_close(), "no close frame expected");
        frames.push(frame);
    }
    frames
}

#[tokio::test]
async fn the_connection_is_dropped_after_so_many_frames_so_many_times() {
    let faults = Faults { drop_after: Some(4), drops_max: Some(2), ..Faults::default() };
    let (relay, _) = faulty(&notes(10), faults).await;
    for _ in 0..2 {
        let mut client = Client::connect(relay.addr).await;
        client.send(json!(["REQ", "a", {}])).await;
        assert_eq!(until_dropped(&mut client).await.len(), 4);
    }
    assert_eq!(Client::connect(relay.addr).await.stored(&[json!({})]).await.len(), 10);
}

#[tokio::test]
async fn the_connection_is_dropped_after_so_long() {
    let (_relay, mut client) = faulty(&[], Faults { drop_every: Some(QUIET), ..Faults::default() }).await;
    let opened = std::time::Instant::now();
    assert!(until_dropped(&mut client).await.is_empty());
    assert!(opened.elapsed() + Duration::from_millis(20) >= QUIET);
}

#[tokio::test]
async fn a_stalled_relay_sends_nothing_more_and_holds_the_socket() {
    let (_relay, mut client) = faulty(&notes(10), Faults { stall_after: Some(3), ..Faults::default() }).await;
    client.send(json!(["REQ", "a", {}])).await;
    for _ in 0..3 {
        assert_eq!(client.next().await[0], "EVENT");
    }
    client.socket.send(Message::Ping(b"there?".to_vec().into())).await.expect("the socket is open");
    client.quiet().await;
}

#[tokio::test]
async fn garbage_comes_between_the_frames() {
    let (_relay, mut client) = faulty(&notes(30), Faults { garbage_every: Some(3), ..Faults::default() }).await;
    client.send(json!(["REQ", "a", {}])).await;
    let (mut events, mut junk, mut frames) = (0, Vec::new(), 0);
    loop {
        let frame = client.frame().await.expect("the connection holds");
        frames += 1;
        let good = match &frame {
            Message::Text(text) if text.as_str().starts_with("[\"EVENT\",\"a\",{\"id\"") => {
                events += 1;
                true
            }
            Message::Text(text) if text.as_str() == "[\"EOSE\",\"a\"]" => break,
            _ => false,
        };
        if !good {
            assert_eq!(frames % 4, 0, "after every third frame");
            junk.push(frame);
        }
    }
    assert_eq!((events, junk.len()), (30, 10));
    assert!(junk.iter().any(Message::is_binary));
}

#[tokio::test]
async fn one_huge_frame_comes_first_and_once() {
    let (relay, mut client) = faulty(&notes(1), Faults { huge_frame_bytes: Some(3 << 20), ..Faults::default() }).await;
    assert_eq!(client.text().await.len(), 3 << 20);
    assert_eq!(client.stored(&[json!({})]).await.len(), 1);
    let mut next = Client::connect(relay.addr).await;
    assert_eq!(next.stored(&[json!({})]).await.len(), 1);
}

#[tokio::test]
async fn eose_can_be_missing_late_or_followed_by_closed() {
    let (_relay, mut client) = faulty(&notes(2), Faults { no_eose: true, ..Faults::default() }).await;
    client.send(json!(["REQ", "a", {}])).await;
    for _ in 0..2 {
        assert_eq!(client.next().await[0], "EVENT");
    }
    client.quiet().await;

    let (_relay, mut client) = faulty(&notes(1), Faults { eose_delay: QUIET * 3, ..Faults::default() }).await;
    client.send(json!(["REQ", "a", {}])).await;
    assert_eq!(client.next().await[0], "EVENT");
    client.quiet().await;
    assert_eq!(client.next().await[0], "EOSE");

    let (relay, mut client) = faulty(&notes(1), Faults { closed_after_eose: true, ..Faults::default() }).await;
    client.send(json!(["REQ", "a", {}])).await;
    client.until_eose("a").await;
    assert_eq!(client.next().await[0], "CLOSED");
    Client::connect(relay.addr).await.publish(&note(7, 7)).await;
    client.quiet().await;
}

#[tokio::test]
async fn a_forged_copy_comes_before_its_original() {
    let (_relay, mut client) = faulty(&notes(4), Faults { forge_every: Some(2), ..Faults::default() }).await;
    client.send(json!(["REQ", "a", {}])).await;
    let events = client.until_eose("a").await;
    assert_eq!(events.len(), 6);
    for at in [1, 4] {
        let (forged, original) = (&events[at], &events[at + 1]);
        assert_eq!((&forged["id"], &forged["sig"]), (&original["id"], &original["sig"]));
        assert_ne!(forged["content"], original["content"]);
        let verdict = |event: &Value| {
            let event = Event::parse(event.to_string().as_bytes(), &event::Limits::default());
            event.and_then(event::verify::verify).is_ok()
        };
        assert!(!verdict(forged) && verdict(original));
    }
}

#[tokio::test]
async fn the_first_connections_are_refused() {
    let relay =
        holding(&[], Settings { faults: Faults { refuse: 2, ..Faults::default() }, ..Settings::default() }).await;
    assert!(Client::try_connect(relay.addr).await.is_err());
    assert!(Client::try_connect(relay.addr).await.is_err());
    assert!(Client::try_connect(relay.addr).await.is_ok());
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_disconnected_and_others_lose_nothing() {
    let relay = holding(&[], Settings { live_waiting_max: 100, ..Settings::default() }).await;
    let (mut slow, mut quick) = (Client::connect(relay.addr).await, Client::connect(relay.addr).await);
    for client in [&mut slow, &mut quick] {
        client.send(json!(["REQ", "a", {}])).await;
        client.until_eose("a").await;
    }
    let mut publisher = Client::connect(relay.addr).await;
    let content = "x".repeat(100_000);
    let count = 600;
    for at in 0..count {
        publisher.publish(&signed(1, 1, at, &[], &content)).await;
        assert_eq!(quick.next().await[2]["created_at"], at);
        assert_eq!(publisher.next().await[2], true);
    }
    // Sixty megabytes are more than the buffers of two sockets hold, so the queue has overflowed.
    let read = until_dropped(&mut slow).await.len();
    assert!(i64::try_from(read).expect("small") < count, "{read}");
}

#[tokio::test]
async fn connections_beyond_the_limit_and_messages_too_long_are_refused() {
    let relay = start(Settings { connections_max: 1, message_bytes_max: 1_000, ..Settings::default() }).await;
    let mut client = Client::connect(relay.addr).await;
    client.send(json!(["REQ", "a", {}])).await;
    client.until_eose("a").await;
    assert!(Client::try_connect(relay.addr).await.is_err());
    client.send_text(&"x".repeat(2_000)).await;
    match client.frame().await {
        Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1_009),
        other => panic!("a close frame expected, not {other:?}"),
    }
}
