//! Sets compared as a client sees it (NIP-77).

use std::collections::BTreeSet;

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use super::*;

/// The ids that a comparison finds here and not at the client, which holds `held`.
async fn missing(client: &mut Client, filter: Value, held: &[Event]) -> BTreeSet<[u8; 32]> {
    let mut set = NegentropyStorageVector::new();
    for event in held {
        set.insert(event.created_at.unsigned_abs(), Id::from_byte_array(event.id.0)).expect("an item");
    }
    set.seal().expect("a set");
    let mut mine = Negentropy::owned(set, 0).expect("a comparison");
    let first = hex::encode(mine.initiate().expect("a first step"));
    client.send(json!(["NEG-OPEN", "n", filter, first])).await;
    let (mut have, mut need) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let answer = client.next().await;
        assert_eq!((&answer[0], &answer[1]), (&json!("NEG-MSG"), &json!("n")), "{answer}");
        let step = hex::decode(answer[2].as_str().expect("hex")).expect("hex");
        match mine.reconcile_with_ids(&step, &mut have, &mut need).expect("a step") {
            Some(next) => client.send(json!(["NEG-MSG", "n", hex::encode(next)])).await,
            None => break,
        }
    }
    client.send(json!(["NEG-CLOSE", "n"])).await;
    need.into_iter().map(Id::to_bytes).collect()
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeSet<[u8; 32]> {
    events.into_iter().map(|event| event.id.0).collect()
}

#[tokio::test]
async fn a_comparison_finds_what_the_client_lacks_whatever_the_limit_of_pages() {
    let events = notes(4_000);
    let settings = Settings { max_limit: 10, default_limit: 10, ..Settings::default() };
    let relay = holding(&events, settings).await;
    let mut client = Client::connect(relay.addr).await;
    assert_eq!(missing(&mut client, json!({}), &[]).await, ids(&events));
    let (held, lacked): (Vec<Event>, Vec<Event>) = events.iter().cloned().partition(|event| event.id.0[0] % 5 > 0);
    assert_eq!(missing(&mut client, json!({}), &held).await, ids(&lacked));
    let second = events[17].created_at;
    let wanted = ids(events.iter().filter(|event| event.created_at == second));
    assert_eq!(missing(&mut client, json!({"since": second, "until": second}), &[]).await, wanted);
}

#[tokio::test]
async fn what_is_no_comparison_is_refused() {
    let relay = holding(&notes(3), Settings::default()).await;
    let mut client = Client::connect(relay.addr).await;
    for (message, words) in [
        (json!(["NEG-OPEN", "n", {"kinds": "x"}, "61"]), "invalid"),
        (json!(["NEG-OPEN", "n", {}, "zz"]), "no hex"),
        (json!(["NEG-MSG", "other", "61"]), "no such comparison"),
    ] {
        client.send(message).await;
        let answer = client.next().await;
        assert!(answer[0] == "NEG-ERR" && answer[2].as_str().is_some_and(|why| why.contains(words)), "{answer}");
    }
    let without = holding(&notes(3), Settings { compares: false, ..Settings::default() }).await;
    let mut client = Client::connect(without.addr).await;
    client.send(json!(["NEG-OPEN", "n", {}, "61000200"])).await;
    assert_eq!(client.next().await[0], "NOTICE");
}
