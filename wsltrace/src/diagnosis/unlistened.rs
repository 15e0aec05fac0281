//! A port that somebody has without listening on it for TCP: a server of UDP, or a socket that does not listen (yet).

use super::case::Case;
use super::listener::who;
use crate::evidence::Unlistened;

/// What to say of it where nothing listens on the port, and what helps.
pub(super) fn told(case: &Case) -> Option<(String, Vec<String>)> {
    let port = case.journey.last_destination().1;
    Some(match case.evidence.unlistened.as_ref()? {
        Unlistened::Udp { socket } => {
            let told = format!("; {} has that port for UDP, by which no TCP connection is taken", who(socket));
            let advice = "# have it listen for TCP as well: browsers and most other clients begin with TCP (only QUIC, as of HTTP/3, comes by UDP); what it has:";
            (told, vec![advice.to_owned(), case.root(&format!("ss -lunp 'sport = :{port}'"))])
        }
        Unlistened::Bound { socket } => {
            let told = format!("; {} has taken that port, but does not listen on it (yet)", who(socket));
            let advice = "# if it is still starting, try again; otherwise see its log".to_owned();
            let look = socket.pid.map(|pid| format!("sudo cat /proc/{pid}/status /proc/{pid}/stack"));
            (told, [advice].into_iter().chain(look).collect())
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Proved, tests::expect};
    use crate::evidence::{Evidence, Unlistened};
    use crate::output::samples::{self, listener, with_listeners};

    #[test]
    fn who_has_the_port_otherwise_is_told_and_nobody_to_start_another_server() {
        let journey = samples::bound_elsewhere().journey;
        let with = |unlistened| Evidence { unlistened: Some(unlistened), ..with_listeners(Vec::new()) };
        let found = expect(&journey, &with(Unlistened::Udp { socket: listener("0.0.0.0") }), Code::NoListener, Proved);
        assert!(found.summary.contains("; server (pid 412) has that port for UDP"), "{}", found.summary);
        assert_eq!(found.remedy[1], "sudo ss -lunp 'sport = :8080'");
        let found = expect(&journey, &with(Unlistened::Bound { socket: listener("0.0.0.0") }), Code::NoListener, Proved);
        assert!(found.summary.contains("; server (pid 412) has taken that port, but does not"), "{}", found.summary);
        assert!(found.remedy.iter().all(|line| !line.contains("start the server")), "{:?}", found.remedy);
        // A listener at another address is what the client missed.
        let evidence = Evidence {
            unlistened: Some(Unlistened::Udp { socket: listener("0.0.0.0") }),
            ..with_listeners(vec![listener("127.0.0.1")])
        };
        let found = expect(&journey, &evidence, Code::ListenerBoundElsewhere, Proved);
        assert!(!found.summary.contains("UDP"), "{}", found.summary);
    }
}
