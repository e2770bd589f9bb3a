//! Faults 1 to 6: what becomes of a connection, before and after it stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ingest::NostrSettings;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tests::scripted_relay::{Act, Cue, Door, Plot, ScriptedRelay, torn_event};
use tests::signed;
use tests::wire::{Blow, Course, Wire};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::fault;
use super::lab::{Lab, SOON, quick, until};

/// A port on which nobody listens.
async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").to_string()
}

/// 1: five hundred relays that refuse, one that never answers, and one that works.
#[test]
fn dead_relays_hold_nobody_back() {
    fault(async {
        let good = ScriptedRelay::honest(&signed::events(1, 300)).await;
        let silent = ScriptedRelay::start(Plot::of(&[]).door(|_| Door::Silent)).await;
        let closed = closed_port().await;
        let mut relays: Vec<String> = (0..500).map(|number| format!("ws://{closed}/{number}")).collect();
        relays.extend([silent.url(), good.url()]);
        let lab = Lab::new();
        let run = lab.follow(&relays);
        run.until_published(300).await;
        // What answers nothing is left after the connect timeout, and tried again.
        until("a second try at the silent relay", || silent.connections() >= 2).await;
        let counters = run.stop().await;
        assert_eq!(counters.relays.len(), 502);
        lab.audit(&[&good], 300).await;
    });
}

/// 1: a relay that is not there yet.
#[test]
fn a_relay_that_comes_up_later_is_found() {
    fault(async {
        let plot = Plot::of(&signed::events(2, 200)).door(|number| if number < 4 { Door::Shut } else { Door::Open });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(200).await;
        run.stop().await;
        lab.audit(&[&relay], 200).await;
    });
}

/// 2: no TLS where TLS was asked for.
#[test]
fn a_relay_without_tls_is_not_spoken_to_in_plain_text() {
    fault(async {
        let relay = ScriptedRelay::honest(&signed::events(3, 50)).await;
        let lab = Lab::new();
        let settings = NostrSettings {
            relays: vec![relay.url().replace("ws://", "wss://")],
            once: true,
            attempts_max: 3,
            ..quick()
        };
        let (counters, result) = lab.run(settings).ends().await;
        let error = result.expect_err("there is no TLS").to_string();
        assert!(error.contains(&relay.address().to_string()), "{error}");
        assert_eq!((relay.connections(), counters.received), (3, 0));
        let spoken = format!("{:?}", relay.asked());
        assert!(!spoken.contains("GET ") && !spoken.contains("Sec-WebSocket"), "{spoken}");
    });
}

/// A door to a relay with a certificate that nobody vouches for; and how often somebody came in.
async fn self_signed(relay: &ScriptedRelay) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("made");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.into()], key).expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, far) = (listener.local_addr().expect("bound"), relay.address());
    let came_in = Arc::new(AtomicUsize::new(0));
    let (counted, mut tasks) = (Arc::clone(&came_in), JoinSet::new());
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut near) = acceptor.accept(stream).await else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            let mut far = TcpStream::connect(far).await.expect("the relay listens");
            // Whoever ends it, it is over.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    });
    (address, came_in, tasks)
}

/// 2: a certificate of nobody's.
#[test]
fn a_relay_whose_certificate_nobody_vouches_for_is_not_spoken_to() {
    fault(async {
        let relay = ScriptedRelay::honest(&signed::events(16, 50)).await;
        let (address, came_in, _tasks) = self_signed(&relay).await;
        let lab = Lab::new();
        let relays = vec![format!("wss://{address}")];
        let settings = NostrSettings { relays, once: true, attempts_max: 2, ..quick() };
        let (counters, result) = lab.run(settings).ends().await;
        let error = result.expect_err("nobody vouches for it").to_string();
        assert!(error.contains(&address.to_string()) && error.contains("certificate"), "{error}");
        assert_eq!((came_in.load(Ordering::SeqCst), relay.connections(), counters.received), (0, 0, 0));
    });
}

/// 3: what stands before a relay answers the handshake, then the relay does.
#[test]
fn handshakes_that_are_refused_are_tried_again() {
    fault(async {
        let elsewhere = ScriptedRelay::honest(&[]).await;
        let there = format!("Location: http://{}/", elsewhere.address());
        let doors = [
            Door::status("200 OK", &["Content-Type: text/html"], "<html><body>hello</body></html>"),
            Door::status("301 Moved Permanently", &[&there], ""),
            Door::status("401 Unauthorized", &[], "who are you?"),
            Door::status("403 Forbidden", &[], ""),
            Door::status("429 Too Many Requests", &["Retry-After: 1"], "slow down"),
            Door::status("503 Service Unavailable", &[], ""),
            Door::status("520 Unknown", &["Content-Type: text/html"], "<html></html>"),
            Door::Answer("what is this?\r\n\r\n".to_owned()),
        ];
        let refusals = doors.len();
        let keeper = move |number: usize| doors.get(number).cloned().unwrap_or(Door::Open);
        let relay = ScriptedRelay::start(Plot::of(&signed::events(4, 120)).door(keeper)).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(120).await;
        run.stop().await;
        lab.audit(&[&relay], 120).await;
        assert_eq!(relay.connections(), refusals + 1);
        assert_eq!(elsewhere.connections(), 0, "a redirect is not followed to another host");
        let at: Vec<_> =
            relay.asked().into_iter().filter(|asked| asked.message("REQ").is_none()).map(|asked| asked.at).collect();
        assert!(at[5] - at[4] >= Duration::from_secs(1), "Retry-After: 1 is heeded");
    });
}

/// 3: a relay that never lets us in is named, with the reason.
#[test]
fn a_relay_that_never_lets_us_in_is_named() {
    fault(async {
        let good = ScriptedRelay::honest(&signed::events(5, 60)).await;
        let relay = ScriptedRelay::start(Plot::of(&[]).door(|_| Door::status("403 Forbidden", &[], ""))).await;
        let lab = Lab::new();
        let (_, result) = lab.once(&[relay.url(), good.url()]).await;
        let error = result.expect_err("it is forbidden").to_string();
        assert!(error.contains(&relay.url()) && error.contains("403"), "{error}");
        assert!(!error.contains(&good.url()), "{error}");
        lab.audit(&[&good], 60).await;
    });
}

/// 4: the peer vanishes without a word.
#[test]
fn a_half_open_connection_is_found_out_and_what_was_missed_is_fetched() {
    fault(async {
        let events = signed::events(6, 400);
        let relay = ScriptedRelay::honest(&events[..300]).await;
        let wire = Wire::to(relay.address()).await;
        let lab = Lab::new();
        let run = lab.follow(&[format!("ws://{}", wire.address())]);
        run.until_published(300).await;
        run.until_stored_done().await;
        wire.strike(Blow::BlackHole);
        sleep(Duration::from_millis(20)).await;
        for event in &events[300..] {
            relay.publish(event);
        }
        let counters = run.until_published(400).await;
        assert_eq!(counters.relays[0].connects, 2);
        run.stop().await;
        lab.audit(&[&relay], 400).await;
    });
}

/// 5: the connection is cut again and again while there is much to fetch, and events go on coming.
#[test]
fn a_connection_that_is_cut_again_and_again_loses_nothing() {
    fault(async {
        let events = signed::events(7, 6_000);
        let (stored, live) = events.split_at(5_000);
        let relay = ScriptedRelay::honest(stored).await;
        let wire = Wire::to(relay.address()).await;
        let lab = Lab::new();
        let run = lab.follow(&[format!("ws://{}", wire.address())]);
        for (number, burst) in live.chunks(100).enumerate() {
            burst.iter().for_each(|event| relay.publish(event));
            sleep(Duration::from_millis(40)).await;
            wire.strike(if number % 2 == 0 { Blow::Cut } else { Blow::Reset });
        }
        // It may have been away when some of them fell.
        while run.counters().relays[0].connects < 5 {
            sleep(Duration::from_millis(40)).await;
            wire.strike(Blow::Cut);
        }
        run.until_published(6_000).await;
        let counters = run.stop().await;
        assert!(counters.relays[0].connects >= 5, "{counters:?}");
        lab.audit(&[&relay], 6_000).await;
    });
}

/// 5: what a cut costs in traffic, when nothing but the past is fetched.
#[test]
fn a_walk_goes_on_where_it_was_cut() {
    fault(async {
        let events = signed::events(8, 4_000);
        // Every connection ends in its fourth page.
        let plot = Plot::of(&events).script(|scene, mut honest| {
            if scene.stored().is_some() && scene.turn % 4 == 3 {
                honest.truncate(250);
                honest.push(Act::Cut);
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        lab.once(&[relay.url()]).await.1.expect("everything");
        lab.audit(&[&relay], 4_000).await;
        let sent: u64 = relay.served().values().sum();
        assert!(sent < 4_000 * 3 / 2, "{sent} events were sent for 4,000");
    });
}

/// 5: cut within the frame of an event.
#[test]
fn a_frame_that_is_torn_is_fetched_again() {
    fault(async {
        let plot = Plot::of(&signed::events(9, 900)).script(|scene, mut honest| {
            if scene.stored().is_some() && scene.connection < 3 {
                honest.truncate(100 * (scene.connection + 1));
                if let Some(Act::Event { sub, raw }) = honest.pop() {
                    honest.extend([torn_event(&sub, &raw), Act::Cut]);
                }
            }
            honest
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let (counters, result) = lab.once(&[relay.url()]).await;
        result.expect("everything");
        assert_eq!(counters.relays[0].connects, 4);
        assert!(lab.rejected().await.is_empty(), "half a frame is not input");
        lab.audit(&[&relay], 900).await;
    });
}

/// 6: a relay that has lost everything.
#[test]
fn a_relay_that_comes_back_empty_is_followed_on() {
    fault(async {
        let events = signed::events(10, 260);
        let relay = ScriptedRelay::honest(&events[..200]).await;
        let wire = Wire::to(relay.address()).await;
        let lab = Lab::new();
        let run = lab.follow(&[format!("ws://{}", wire.address())]);
        run.until_published(200).await;
        run.until_stored_done().await;
        relay.forget_all();
        wire.strike(Blow::Reset);
        until("a second live subscription", || relay.live_requests() == 2).await;
        for event in &events[200..] {
            relay.publish(event);
        }
        run.until_published(260).await;
        run.stop().await;
        lab.audit(&[&relay], 260).await;
    });
}

/// 25: a relay that trickles holds nobody back, and what it trickles is taken.
#[test]
fn a_wire_that_trickles_is_no_more_than_slow() {
    fault(async {
        let slow = ScriptedRelay::honest(&signed::events(11, 40)).await;
        let fast = ScriptedRelay::honest(&signed::events(12, 400)).await;
        let wire = Wire::to(slow.address()).await;
        wire.set(Course::Throttled(20_000));
        let lab = Lab::new();
        let run = lab.follow(&[format!("ws://{}", wire.address()), fast.url()]);
        run.until_published(440).await;
        run.stop().await;
        lab.audit(&[&slow, &fast], 440).await;
    });
}

/// 25: a wire that stands still, then goes on.
#[test]
fn a_stalled_wire_is_left_and_nothing_is_lost() {
    fault(async {
        let events = signed::events(13, 1_200);
        let relay = ScriptedRelay::honest(&events[..1_000]).await;
        let wire = Wire::to(relay.address()).await;
        let lab = Lab::new();
        let run = lab.follow(&[format!("ws://{}", wire.address())]);
        run.until_published(300).await;
        wire.set(Course::Stalled);
        events[1_000..].iter().for_each(|event| relay.publish(event));
        run.until("the loss", |counters| !counters.relays[0].connected).await;
        wire.set(Course::Through);
        run.until_published(1_200).await;
        run.stop().await;
        lab.audit(&[&relay], 1_200).await;
    });
}

/// A goodbye of the relay is the end of a session, not of the relay.
#[test]
fn a_relay_that_says_goodbye_is_visited_again() {
    fault(async {
        let codes = [1000, 1001, 1008, 1011, 1012, 1013];
        let plot = Plot::of(&signed::events(14, 80)).script(move |scene, honest| match scene.cue {
            Cue::Connected if scene.connection < codes.len() => vec![Act::Goodbye(codes[scene.connection], "bye")],
            _ => honest,
        });
        let relay = ScriptedRelay::start(plot).await;
        let lab = Lab::new();
        let run = lab.follow(&[relay.url()]);
        run.until_published(80).await;
        tokio::time::timeout(SOON, run.stop()).await.expect("it stops");
        lab.audit(&[&relay], 80).await;
    });
}

/// 49: one relay under several names.
#[test]
fn a_relay_that_is_named_twice_is_visited_once() {
    fault(async {
        let relay = ScriptedRelay::honest(&signed::events(15, 70)).await;
        let port = relay.address().port();
        let names =
            [relay.url(), relay.url() + "/", format!("WS://127.0.0.1:{port}"), format!("ws://127.0.0.1:{port}/#x")];
        let lab = Lab::new();
        let run = lab.follow(&names);
        run.until_published(70).await;
        run.until_stored_done().await;
        let counters = run.stop().await;
        assert_eq!((relay.connections(), counters.relays.len()), (1, 1));
        lab.audit(&[&relay], 70).await;
    });
}
