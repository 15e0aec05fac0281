//! The load against servers of the test's own, on loopback.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::attempt::{Failure, Mode};
use super::load::{Load, run};
use super::rounds::Plan;
use super::serve::Server;
use super::tally::Tally;
use super::target::Resolved;

fn load(mode: Mode) -> Load {
    Load { clients: 4, duration: Duration::from_millis(200), rate: None, mode, limit: Duration::from_secs(5) }
}

async fn measure(load: &Load, address: SocketAddr) -> Tally {
    let target = Resolved { name: "it".to_owned(), host: address.to_string(), address };
    let load = load.clone();
    let (_keep, stop) = watch::channel(false);
    tokio::task::spawn_blocking(move || run(&load, &target, &stop)).await.unwrap().unwrap()
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Our own server, which ends with the test's runtime.
fn serve(payload: usize) -> SocketAddr {
    let server = Server::bind(local(), payload).unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.run());
    address
}

#[tokio::test]
async fn every_mode_is_answered() {
    for mode in [Mode::Connect, Mode::Http, Mode::HttpKeepAlive] {
        // A body that needs several readings.
        let tally = measure(&load(mode), serve(100_000)).await;
        assert!(tally.waited.len() >= 4 && tally.failures() == 0, "{mode:?}: {:?}", tally.failed);
        assert!(tally.segments.sent > 0 && tally.lasted >= Duration::from_millis(200), "{mode:?}");
    }
}

/// A server that does the same to every connection after it read a little.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok() {
                drop(stream.write_all(answer).await);
            }
        }
    });
    address
}

#[tokio::test]
async fn each_failure_is_told_apart() {
    let only = |tally: &Tally| {
        assert_eq!(tally.failed.len(), 1, "{:?}", tally.failed);
        (*tally.failed.keys().next().unwrap(), tally.waited.len())
    };
    let closed = measure(&load(Mode::Http), answering(b"").await).await;
    assert_eq!(only(&closed), (Failure::Closed, 0));
    let short = measure(&load(Mode::Http), answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nxyz").await).await;
    assert_eq!(only(&short), (Failure::Short, 0));
    let cut = measure(&load(Mode::Http), answering(b"HTTP/1.1 200").await).await;
    assert_eq!(only(&cut), (Failure::Short, 0));
    let garbage = measure(&load(Mode::Http), answering(b"220 mail.example ESMTP\r\n").await).await;
    assert_eq!(only(&garbage), (Failure::Short, 0));
    // A port that was free a moment ago.
    let free = TcpListener::bind(local()).await.unwrap().local_addr().unwrap();
    assert_eq!(only(&measure(&load(Mode::Connect), free).await), (Failure::Refused, 0));
    // Accepted by the kernel, and never read by anybody.
    let silent = std::net::TcpListener::bind(local()).unwrap();
    let patient = Load { limit: Duration::from_millis(50), ..load(Mode::Http) };
    assert_eq!(only(&measure(&patient, silent.local_addr().unwrap()).await), (Failure::TimedOut, 0));
}

/// What this machine refuses at once leaves its thread to the other clients, and to whoever wants the end.
#[tokio::test]
async fn a_client_that_cannot_begin_rests() {
    let load = load(Mode::Connect);
    // No TCP connection leads to this address, and nothing is sent.
    let tally = measure(&load, "255.255.255.255:80".parse().unwrap()).await;
    assert!(tally.failed.keys().all(|failure| failure.is_at_once()), "{:?}", tally.failed);
    let most = u64::from(load.clients) * (1 + u64::try_from(load.duration.as_millis()).unwrap());
    assert!((4..=most).contains(&tally.failures()), "{} of at most {most}", tally.failures());
}

/// A client whose last answer comes long after the end has had none until then, and the others have had theirs.
#[tokio::test]
async fn the_rate_of_each_client_is_its_own() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answered, mut count) = watch::channel(0_u64);
    let load = Load { clients: 2, ..load(Mode::HttpKeepAlive) };
    let duration = load.duration;
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((mut stream, _)) = listener.accept().await {
            let waits = std::mem::take(&mut is_first);
            let answered = answered.clone();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if waits {
                        tokio::time::sleep(duration * 4).await;
                    }
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await);
                    answered.send_modify(|count| *count += 1);
                }
            });
        }
    });
    let tally = measure(&load, address).await;
    let others = *count.borrow_and_update() - 1;
    assert!(tally.failures() == 0 && tally.waited.len() == others + 1, "{:?} {others}", tally.failed);
    // Of the time until the last answer, the others had a fourth.
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let over_all = others as f64 / tally.lasted.as_secs_f64();
    assert!(tally.rate > 2.0 * over_all, "{} and {over_all}", tally.rate);
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_the_connection() {
    let tally = measure(&load(Mode::HttpKeepAlive), answering(b"HTTP/1.1 200 OK\r\n\r\nhello").await).await;
    assert!(tally.failures() == 0 && !tally.waited.is_empty(), "{:?}", tally.failed);
}

/// A server that stalls makes those wait who come meanwhile, whether or not a client was free to begin.
#[tokio::test]
async fn a_rate_leaves_out_nobody_who_waited() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stall = Duration::from_millis(100);
    tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if streams.is_empty() {
                tokio::time::sleep(stall).await;
            }
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok() {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await);
            }
            streams.push(stream);
        }
    });
    let load = Load { clients: 1, rate: Some(200.0), ..load(Mode::Http) };
    let tally = measure(&load, address).await;
    // About 20 of the 40 turns fell due within the stall: one attempt was slow, and 20 waited.
    let above = |histogram: &hdrhistogram::Histogram<u32>| {
        histogram.len() - histogram.count_between(0, u64::try_from(stall.as_nanos() / 4).unwrap())
    };
    // Those that waited behind the stall may not all have had their turn in time; none is forgotten.
    assert!(tally.attempts() + tally.not_begun >= 40, "{} and {}", tally.attempts(), tally.not_begun);
    // Where only the time from the real start counted, one attempt would be slow; a slow machine only adds to those that waited.
    let (waited, served) = (above(&tally.waited) + tally.not_begun, above(&tally.service));
    assert!(waited >= 8 && waited >= served, "{waited} and {served}");
}

/// One client waits for an answer that comes only when the others have made most of all attempts: whichever thread each belongs to, the
/// others make its share.
#[tokio::test]
async fn a_turn_is_taken_by_whichever_client_is_free() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Of the hundred, a thread's own share are fifty where there are two, and fewer where there are more.
    let (count, mut counted) = watch::channel(0_u64);
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((mut stream, _)) = listener.accept().await {
            let waits = std::mem::take(&mut is_first);
            let (count, mut others) = (count.clone(), count.subscribe());
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if waits && others.wait_for(|others| *others >= 60).await.is_err() {
                        return;
                    }
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await);
                    count.send_modify(|count| *count += 1);
                }
            });
        }
    });
    let load = Load { clients: 2, rate: Some(100.0), duration: Duration::from_secs(1), ..load(Mode::HttpKeepAlive) };
    let tally = measure(&load, address).await;
    assert_eq!((tally.failures(), tally.waited.len()), (0, *counted.borrow_and_update()), "{:?}", tally.failed);
    assert_eq!(tally.attempts() + tally.not_begun, 100);
}

/// A server that ends connections on which nothing comes for a while has answered all that it was asked.
#[tokio::test]
async fn a_kept_connection_that_was_ended_meanwhile_is_made_anew() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await);
                }
            });
        }
    });
    // It ends each at once, and the next request is due much later.
    let load = Load { clients: 1, rate: Some(5.0), duration: Duration::from_secs(1), ..load(Mode::HttpKeepAlive) };
    let tally = measure(&load, address).await;
    assert!(tally.failures() == 0 && tally.waited.len() > 1, "{:?}", tally.failed);
    assert_eq!(tally.connections, tally.waited.len());
}

/// Whoever ends a run that hangs is told that the longest wait is in no figure.
#[tokio::test]
async fn an_attempt_under_way_at_the_end_is_told() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (interrupt, stop) = watch::channel(false);
    let target = Resolved { name: "it".to_owned(), host: address.to_string(), address };
    let load = Load { clients: 1, duration: Duration::from_mins(1), limit: Duration::from_mins(1), ..load(Mode::Http) };
    let running = tokio::task::spawn_blocking(move || run(&load, &target, &stop));
    let (mut held, _) = listener.accept().await.unwrap();
    let mut request = [0; 1024];
    assert!(held.read(&mut request).await.unwrap() > 0);
    interrupt.send_replace(true);
    let tally = running.await.unwrap().unwrap();
    assert_eq!((tally.attempts(), tally.given_up), (0, 1));
    assert!(tally.is_cut_off() && tally.gave_up_the_longest() && tally.given_up_after > Duration::ZERO);
}

/// A round that was cut off before anything came of it is none: it would leave the others without an interval.
#[tokio::test]
async fn a_round_that_was_cut_off_is_no_round() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (interrupt, stop) = watch::channel(false);
    let (hold, holding) = watch::channel(false);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_err() {
                continue;
            }
            if *holding.borrow() {
                silent.push(stream);
                interrupt.send_replace(true);
            } else {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await);
            }
        }
    });
    let plan = Plan {
        targets: vec![Resolved { name: "it".to_owned(), host: address.to_string(), address }],
        modes: vec![Mode::Http],
        clients: 1,
        duration: Duration::from_millis(600),
        rounds: Some(3),
        rate: None,
        limit: Duration::from_mins(1),
        seed: 1,
    };
    // A warm-up and two rounds, and nobody answers in the third.
    let mut steps = 0;
    let tell = move |_: &str, _| {
        steps += 1;
        hold.send_replace(steps == 4);
    };
    let measuring = tokio::task::spawn_blocking(move || plan.measure(Err(String::new()), &stop, tell));
    let path = measuring.await.unwrap().unwrap().paths.remove(0);
    assert_eq!((path.rounds.len(), path.cut_off.is_some(), path.total().given_up), (2, true, 1));
    assert!(path.rounds.iter().all(|round| !round.waited.is_empty()));
}
