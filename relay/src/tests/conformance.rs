//! NIP-01 case by case, as a client sees it; NIP-11; and the rules that `nip01` asks for.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn relay_with(events: &[Event]) -> (Running, Client) {
    let relay = holding(events, Settings::default()).await;
    let client = Client::connect(relay.addr).await;
    (relay, client)
}

#[tokio::test]
async fn stored_events_come_newest_first_and_equal_times_lowest_id_first() {
    let mut events = notes(20);
    events.extend((3..9).map(|author| note(author, 1_010)));
    let (_relay, mut client) = relay_with(&events).await;
    assert_eq!(client.stored(&[json!({})]).await, in_order(&events));
}

#[tokio::test]
async fn the_limit_keeps_the_newest() {
    let events = notes(20);
    let (_relay, mut client) = relay_with(&events).await;
    assert_eq!(client.stored(&[json!({"limit": 7})]).await, in_order(&events)[..7]);
    assert_eq!(client.stored(&[json!({"limit": 700})]).await.len(), 20);
}

#[tokio::test]
async fn limit_zero_gives_no_history_and_stays_live() {
    let (_relay, mut client) = relay_with(&notes(5)).await;
    client.send(json!(["REQ", "live", {"limit": 0}])).await;
    assert_eq!(client.until_eose("live").await, Vec::<Value>::new());
    let event = note(1, 5);
    Client::connect(_relay.addr).await.publish(&event).await;
    assert_eq!(client.next().await[2]["id"], event.id.to_string());
}

#[tokio::test]
async fn default_and_greatest_limit_hold() {
    let events = notes(30);
    let caps = |default_limit, max_limit| Settings { default_limit, max_limit, ..Settings::default() };
    for (settings, unasked, asked) in
        [(caps(10, 20), 10, 20), (caps(10, 0), 10, 30), (caps(0, 0), 30, 30), (caps(25, 20), 20, 20)]
    {
        let relay = holding(&events, settings).await;
        let mut client = Client::connect(relay.addr).await;
        assert_eq!(client.stored(&[json!({})]).await.len(), unasked);
        assert_eq!(client.stored(&[json!({"limit": 1_000})]).await.len(), asked);
    }
}

#[tokio::test]
async fn ids_authors_and_kinds_select() {
    let mut events = notes(12);
    events.push(signed(1, 7, 2_000, &[], "+"));
    events.push(signed(2, 30_023, 2_001, &[&["d", "x"]], "long"));
    let (_relay, mut client) = relay_with(&events).await;
    let (a, b) = (events[3].id.to_string(), events[12].id.to_string());
    assert_eq!(client.stored(&[json!({"ids": [a, b]})]).await, [b, a]);
    let author = events[1].pubkey;
    let of_author = in_order(events.iter().filter(|event| event.pubkey == author));
    assert_eq!(client.stored(&[json!({"authors": [author.to_string()]})]).await, of_author);
    let of_kinds = in_order(events.iter().filter(|event| event.kind != 1));
    assert_eq!(client.stored(&[json!({"kinds": [7, 30023]})]).await, of_kinds);
}

#[tokio::test]
async fn since_and_until_are_inclusive() {
    let events = notes(20);
    let (_relay, mut client) = relay_with(&events).await;
    let between = in_order(&events[5..=9]);
    assert_eq!(client.stored(&[json!({"since": 1_005, "until": 1_009})]).await, between);
    assert_eq!(client.stored(&[json!({"since": 1_009, "until": 1_005})]).await.len(), 0);
    assert_eq!(client.stored(&[json!({"until": 1_000})]).await, in_order(&events[..1]));
}

#[tokio::test]
async fn tags_are_compared_exactly_and_letters_keep_their_case() {
    let tagged = |at, tags: &[&[&str]]| signed(1, 1, at, tags, "");
    let events = [
        tagged(1, &[&["t", "nostr"], &["t", "two"]]),
        tagged(2, &[&["t", "Nostr"]]),
        tagged(3, &[&["T", "nostr"]]),
        tagged(4, &[&["t"], &["tt", "nostr"], &["x", "y", "nostr"]]),
        tagged(5, &[&["t", "nostr", "more"], &["e", "abc"]]),
    ];
    let (_relay, mut client) = relay_with(&events).await;
    assert_eq!(client.stored(&[json!({"#t": ["nostr"]})]).await, in_order([&events[0], &events[4]]));
    assert_eq!(client.stored(&[json!({"#T": ["nostr"]})]).await, in_order([&events[2]]));
    assert_eq!(client.stored(&[json!({"#t": ["two", "Nostr"]})]).await, in_order([&events[0], &events[1]]));
    assert_eq!(client.stored(&[json!({"#t": ["nostr"], "#e": ["abc"]})]).await, in_order([&events[4]]));
    assert_eq!(client.stored(&[json!({"#t": ["nostr"], "#e": ["none"]})]).await.len(), 0);
}

#[tokio::test]
async fn conditions_of_a_filter_all_hold_and_an_empty_list_matches_nothing() {
    let events = notes(12);
    let (_relay, mut client) = relay_with(&events).await;
    let author = events[1].pubkey.to_string();
    let wanted = in_order(events[5..].iter().filter(|event| event.pubkey == events[1].pubkey));
    assert_eq!(client.stored(&[json!({"kinds": [1], "authors": [author], "since": 1_005})]).await, wanted);
    assert_eq!(client.stored(&[json!({"kinds": []})]).await.len(), 0);
    assert_eq!(client.stored(&[json!({"#t": []})]).await.len(), 0);
}

#[tokio::test]
async fn several_filters_are_a_union_without_doubles_each_with_its_limit() {
    let events = notes(20);
    let (_relay, mut client) = relay_with(&events).await;
    let filters = [json!({"limit": 3}), json!({"until": 1_018, "limit": 3}), json!({"until": 1_001})];
    let wanted = in_order(events[16..].iter().chain(&events[..2]));
    assert_eq!(client.stored(&filters).await, wanted);
}

#[tokio::test]
async fn events_are_sent_byte_for_byte() {
    let event = signed(1, 1, 1_000, &[&["t", "é\u{7f}"]], "tab\t\"quote\" 🤙");
    let odd = event
        .to_json()
        .replacen(",\"kind\":1,", " , \"kind\" : 1 , \"seen\":[1.50], ", 1)
        .replace("🤙", "\\ud83e\\udd19");
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().expect("a file");
    std::fs::write(file.path(), format!("{odd}\r\n")).expect("written");
    let relay = start(Settings { events: vec![file.path().to_owned()], ..Settings::default() }).await;
    let mut client = Client::connect(relay.addr).await;
    client.send(json!(["REQ", "raw", {}])).await;
    assert_eq!(client.text().await, format!("[\"EVENT\",\"raw\",{odd}]"));
    let published = odd.replace(" : 1", ":1").replace("[1.50]", "[2e0]");
    client.until_eose("raw").await;
    client.send_text(&format!("[\"EVENT\", {published} ]")).await;
    assert_eq!(client.next().await[3], "duplicate: have this event");
}

#[tokio::test]
async fn a_published_event_goes_to_the_subscriptions_that_want_it() {
    let (relay, mut client) = relay_with(&[]).await;
    for (id, filter) in
        [("ones", json!({"kinds": [1]})), ("sevens", json!({"kinds": [7]})), ("all", json!({"limit": 0}))]
    {
        client.send(json!(["REQ", id, filter])).await;
        client.until_eose(id).await;
    }
    let event = note(1, 1_000);
    Client::connect(relay.addr).await.publish(&event).await;
    let (a, b) = (client.next().await, client.next().await);
    let mut ids = [a[1].as_str(), b[1].as_str()];
    ids.sort_unstable();
    assert_eq!(ids, [Some("all"), Some("ones")]);
    assert_eq!(a[2]["id"], event.id.to_string());
    client.quiet().await;
}

#[tokio::test]
async fn between_stored_and_live_there_is_no_hole_and_no_double() {
    let relay = holding(&notes(300), Settings { default_limit: 0, max_limit: 0, ..Settings::default() }).await;
    let mut publisher = Client::connect(relay.addr).await;
    let burst: Vec<_> = (0..200).map(|at| note(5, 50_000 + at)).collect();
    let ids: Vec<String> = burst.iter().map(|event| event.id.to_string()).collect();
    let mut publishing = JoinSet::new();
    publishing.spawn(async move {
        for event in &burst {
            publisher.publish(event).await;
            assert_eq!(publisher.next().await[2], true);
        }
    });
    let mut reading = JoinSet::new();
    for reader in 0..8 {
        let (addr, ids) = (relay.addr, ids.clone());
        reading.spawn(async move {
            tokio::time::sleep(Duration::from_millis(3 * reader)).await;
            let mut client = Client::connect(addr).await;
            client.send(json!(["REQ", "all", {"since": 50_000}])).await;
            let (mut seen, mut stored) = (Vec::new(), false);
            // Whether the last event is a stored one or a live one is chance.
            while seen.len() < ids.len() || !stored {
                let message = client.next().await;
                if message[0] == "EVENT" {
                    seen.push(message[2]["id"].as_str().expect("an id").to_owned());
                } else {
                    stored = true;
                }
            }
            client.quiet().await;
            let (mut seen, mut wanted) = (seen, ids);
            seen.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(seen, wanted);
        });
    }
    publishing.join_all().await;
    reading.join_all().await;
}

#[tokio::test]
async fn close_ends_a_subscription_and_a_used_id_replaces_it() {
    let (relay, mut client) = relay_with(&[]).await;
    client.send(json!(["REQ", "a", {"kinds": [1]}])).await;
    client.until_eose("a").await;
    client.send(json!(["REQ", "a", {"kinds": [7]}])).await;
    client.until_eose("a").await;
    let mut publisher = Client::connect(relay.addr).await;
    publisher.publish(&note(1, 1)).await;
    client.quiet().await;
    publisher.publish(&signed(1, 7, 2, &[], "+")).await;
    assert_eq!(client.next().await[2]["kind"], 7);
    client.send(json!(["CLOSE", "a"])).await;
    client.quiet().await;
    publisher.publish(&signed(1, 7, 3, &[], "-")).await;
    client.quiet().await;
}

#[tokio::test]
async fn subscription_ids_have_1_to_64_characters_and_any_of_them() {
    let (_relay, mut client) = relay_with(&[]).await;
    for good in ["x".to_owned(), "ü".repeat(64), "a\"b\\c\n".to_owned()] {
        client.send(json!(["REQ", good, {}])).await;
        assert_eq!(client.next().await, json!(["EOSE", good]));
    }
    for bad in [json!(""), json!("x".repeat(65)), json!(7), json!(null)] {
        client.send(json!(["REQ", bad, {}])).await;
        let answer = client.next().await;
        assert_eq!(answer[0], "NOTICE", "{answer}");
    }
}

#[tokio::test]
async fn refused_filters_are_answered_with_closed() {
    let (_relay, mut client) = relay_with(&notes(1)).await;
    for bad in [json!({"ids": ["ab"]}), json!({"#tt": ["x"]}), json!({"since": -1}), json!({"search": "x"}), json!(7)] {
        client.send(json!(["REQ", "bad", {}, bad])).await;
        let answer = client.next().await;
        assert_eq!((&answer[0], &answer[1]), (&json!("CLOSED"), &json!("bad")));
        assert!(answer[2].as_str().is_some_and(|why| why.starts_with("invalid: ")), "{answer}");
    }
    client.send(json!(["REQ", "none"])).await;
    assert_eq!(client.next().await[0], "CLOSED");
}

#[tokio::test]
async fn junk_gets_a_notice_and_the_connection_lives_on() {
    let (_relay, mut client) = relay_with(&notes(2)).await;
    for junk in [
        "hello",
        "{}",
        "[]",
        "[1]",
        "[\"AUTHOR\",\"x\"]",
        "[\"EVENT\"]",
        "[\"EVENT\",{\"content\":\"x\"}]",
        "[\"CLOSE\"]",
    ] {
        client.send_text(junk).await;
        let answer = client.next().await;
        assert_eq!(answer[0], "NOTICE", "{junk}: {answer}");
    }
    client.socket.send(Message::binary(vec![0, 1, 2])).await.expect("sent");
    assert_eq!(client.next().await[0], "NOTICE");
    assert_eq!(client.stored(&[json!({})]).await.len(), 2);
}

#[tokio::test]
async fn a_valid_event_is_accepted_once_and_then_a_duplicate() {
    let (relay, mut client) = relay_with(&[]).await;
    let event = note(1, 1_000);
    client.publish(&event).await;
    assert_eq!(client.next().await, json!(["OK", event.id.to_string(), true, ""]));
    client.publish(&event).await;
    let again = client.next().await;
    assert_eq!(again[2], true);
    assert!(again[3].as_str().is_some_and(|why| why.starts_with("duplicate: ")), "{again}");
    assert_eq!(Client::connect(relay.addr).await.stored(&[json!({})]).await, [event.id.to_string()]);
}

#[tokio::test]
async fn an_event_that_does_not_verify_is_refused_with_its_reason() {
    let (_relay, mut client) = relay_with(&[]).await;
    let event = note(1, 1_000);
    let (mut signature, mut content) = (event.clone(), event.clone());
    signature.sig[0] ^= 1;
    content.content.push('!');
    let broken = event.to_json().replace("\"kind\":1", "\"kind\":\"1\"");
    for (json, code) in
        [(signature.to_json(), "bad_signature"), (content.to_json(), "id_mismatch"), (broken, "wrong_type")]
    {
        client.send_text(&format!("[\"EVENT\",{json}]")).await;
        let answer = client.next().await;
        let start = (&answer[0], &answer[1], &answer[2]);
        assert_eq!(start, (&json!("OK"), &json!(event.id.to_string()), &json!(false)));
        assert!(answer[3].as_str().is_some_and(|why| why.starts_with(&format!("invalid: {code}"))), "{answer}");
    }
    assert_eq!(client.stored(&[json!({})]).await.len(), 0);
}

#[tokio::test]
async fn too_many_subscriptions_are_refused_but_a_replaced_one_is_not() {
    let relay = start(Settings { subscriptions_max: 2, ..Settings::default() }).await;
    let mut client = Client::connect(relay.addr).await;
    for (id, label) in [("a", "EOSE"), ("b", "EOSE"), ("c", "CLOSED"), ("b", "EOSE")] {
        client.send(json!(["REQ", id, {}])).await;
        let answer = client.next().await;
        assert_eq!((&answer[0], &answer[1]), (&json!(label), &json!(id)));
    }
}

#[tokio::test]
async fn paging_by_until_finds_everything() {
    let events = notes(95);
    let relay = holding(&events, Settings { max_limit: 10, ..Settings::default() }).await;
    let mut client = Client::connect(relay.addr).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut until = i64::MAX;
    loop {
        client.send(json!(["REQ", "page", {"until": until, "limit": 500}])).await;
        let page = client.until_eose("page").await;
        assert!(page.len() <= 10);
        let before = seen.len();
        seen.extend(page.iter().map(|event| event["id"].to_string()));
        if seen.len() == before {
            break;
        }
        until = page.iter().filter_map(|event| event["created_at"].as_i64()).min().expect("a page with news");
    }
    assert_eq!(seen.len(), 95);
}

#[tokio::test]
async fn a_close_frame_is_answered() {
    let (_relay, mut client) = relay_with(&[]).await;
    client.socket.close(None).await.expect("sent");
    assert!(matches!(client.frame().await, Some(Message::Close(_))));
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn pings_are_answered() {
    let (_relay, mut client) = relay_with(&[]).await;
    client.socket.send(Message::Ping(b"nonce".to_vec().into())).await.expect("sent");
    assert_eq!(client.frame().await, Some(Message::Pong(b"nonce".to_vec().into())));
}

#[tokio::test]
async fn a_plain_get_gets_the_document_of_nip_11() {
    let relay = start(Settings { max_limit: 77, ..Settings::default() }).await;
    for (accept, sort) in [("application/nostr+json", "application/nostr+json"), ("text/html", "text/plain")] {
        let mut stream = TcpStream::connect(relay.addr).await.expect("connects");
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", relay.addr);
        let (early, late) = request.split_at(20);
        stream.write_all(early.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(late.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains(sort), "{head}");
        if accept == sort {
            let document: Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(document["limitation"]["max_limit"], 77);
            assert_eq!(document["supported_nips"], json!([1, 11, 77]));
        }
    }
}

#[tokio::test]
async fn an_archive_serves_every_event_as_it_stands() {
    let target = note(1, 1_000);
    let mut forged = note(2, 1_002);
    forged.sig[5] ^= 1;
    let events = [
        target.clone(),
        signed(1, 5, 1_001, &[&["e", &target.id.to_string()]], ""),
        forged,
        signed(1, 0, 1_003, &[], "old profile"),
        signed(1, 0, 1_004, &[], "new profile"),
        signed(1, 20_001, 1_005, &[], "ephemeral"),
        signed(1, 1, 1_006, &[&["expiration", "1007"]], "expired"),
    ];
    let (_relay, mut client) = relay_with(&events).await;
    assert_eq!(client.stored(&[json!({})]).await, in_order(&events));
    let relay = holding(&events, Settings { nip01: true, ..Settings::default() }).await;
    let mut client = Client::connect(relay.addr).await;
    assert_eq!(client.stored(&[json!({})]).await, in_order([&events[1], &events[4]]));
    assert_eq!(relay.loaded, crate::Loaded { events: 2, skipped: 1, ruled_out: 4 });
}

#[tokio::test]
async fn the_rules_answer_and_deliver_when_asked_for() {
    let relay = start(Settings { nip01: true, ..Settings::default() }).await;
    let mut listener = Client::connect(relay.addr).await;
    listener.send(json!(["REQ", "all", {}])).await;
    listener.until_eose("all").await;
    let mut client = Client::connect(relay.addr).await;
    let target = note(1, 1_000);
    let steps = [
        (target.clone(), true, ""),
        (signed(1, 0, 2_000, &[], "new"), true, ""),
        (signed(1, 0, 1_000, &[], "old"), false, "duplicate: "),
        (signed(1, 20_001, 1_000, &[], "now"), true, ""),
        (signed(1, 1, 1_000, &[&["expiration", "1500"]], "gone"), false, "invalid: "),
        (signed(1, 5, 2_001, &[&["e", &target.id.to_string()]], ""), true, ""),
        (target.clone(), false, "blocked: "),
    ];
    for (event, accepted, why) in &steps {
        client.publish(event).await;
        let answer = client.next().await;
        assert_eq!(answer[2], *accepted, "{answer}");
        assert!(answer[3].as_str().is_some_and(|text| text.starts_with(why)), "{answer}");
        if *accepted {
            assert_eq!(listener.next().await[2]["id"], event.id.to_string());
        }
    }
    listener.quiet().await;
    assert_eq!(client.stored(&[json!({})]).await, in_order([&steps[5].0, &steps[1].0]));
}

#[tokio::test]
async fn shutdown_says_goodbye_and_ends() {
    let (mut relay, mut client) = relay_with(&[]).await;
    client.send(json!(["REQ", "a", {}])).await;
    client.until_eose("a").await;
    relay.shutdown.cancel();
    match client.frame().await {
        Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1_001),
        other => panic!("a close frame expected, not {other:?}"),
    }
    let ended = tokio::time::timeout(SOON, relay.serving.join_next()).await.expect("ends in time");
    assert!(ended.expect("was running").expect("did not panic").is_ok());
}
