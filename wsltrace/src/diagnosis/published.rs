//! A port that Docker publishes, and whose packets came to nobody: its rules are gone, or it is published for UDP alone.

use super::case::{Case, Finding};
use crate::escape::{escape, shell_word};
use crate::evidence::{Listener, Published, is_held_by_docker};

/// Docker makes its rules when it is started, and the ones of a port when its container is.
const RESTART: &str = "# Docker makes its rules anew when it is restarted (containers stop meanwhile), unless /etc/docker/daemon.json has \"iptables\": false:";

/// Whether Docker publishes the port for TCP, so that nobody has to be told to publish it.
pub(super) fn is_for_tcp(case: &Case) -> bool {
    case.evidence.published.as_ref().is_some_and(|published| published.tcp)
}

/// What to say of it where nothing listens on the port, and what helps.
pub(super) fn without_listener(case: &Case) -> Option<(String, Vec<String>)> {
    let published = case.evidence.published.as_ref()?;
    let Published { container, inner, tcp } = published;
    let (name, port) = (escape(container), case.journey.flow.destination_port);
    if *tcp {
        let told = format!("; Docker publishes that port for the container {name} (its port {inner}), {}", gone());
        return Some((told, mend(Some(published))));
    }
    let told = format!("; Docker publishes that port for the container {name}, but for UDP only (its port {inner})");
    Some((told, vec![format!("# publish it for TCP as well where the container is started: docker run -p {port}:INNER/tcp")]))
}

/// The finding where Docker's own socket took the connection, by which it keeps a published port from others and accepts nothing.
pub(super) fn with_keeper(case: &Case, takers: &[&Listener]) -> Option<Finding> {
    let [keeper] = takers else { return None };
    if !is_held_by_docker(keeper) {
        return None;
    }
    let published = case.evidence.published.as_ref().filter(|published| published.tcp);
    let container = published.map_or_else(|| "a container".to_owned(), |one| format!("the container {}", escape(&one.container)));
    let summary = format!(
        "connected, but only with {}, which keeps the port for {container} and accepts nothing itself, {}",
        super::listener::who(keeper),
        gone()
    );
    Some(Finding::inferred(summary).remedy(mend(published)))
}

fn gone() -> &'static str {
    "and no rule led the connection there: most likely Docker's rules were flushed (iptables -F, nft flush ruleset, the reload of another firewall)"
}

fn mend(published: Option<&Published>) -> Vec<String> {
    let start = published.map(|published| format!("docker start {}", shell_word(&published.container)));
    [RESTART.to_owned(), "sudo service docker restart".to_owned()].into_iter().chain(start).collect()
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::expect};
    use crate::evidence::{Evidence, Listener, Published};
    use crate::output::samples::{self, CONTAINER, listener, with_listeners};

    fn published(tcp: bool) -> Published {
        Published { container: "web".to_owned(), inner: 80, tcp }
    }

    #[test]
    fn nobody_is_told_to_start_a_server_that_a_container_has() {
        let journey = samples::bound_elsewhere().journey;
        // Its server has the same port as is published.
        let elsewhere = vec![Listener { netns: CONTAINER, ..listener("0.0.0.0") }];
        let with = |tcp| Evidence { published: Some(published(tcp)), elsewhere: elsewhere.clone(), ..with_listeners(Vec::new()) };
        let found = expect(&journey, &with(true), Code::NoListener, Proved);
        assert!(found.summary.contains("for the container web (its port 80), and no rule led"), "{}", found.summary);
        assert_eq!(found.remedy[1..], ["sudo service docker restart", "docker start web"]);
        let udp = Evidence { elsewhere: Vec::new(), ..with(false) };
        let found = expect(&journey, &udp, Code::NoListener, Proved);
        assert!(found.summary.contains("for UDP only (its port 80)"), "{}", found.summary);
        assert!(found.remedy[0].contains("docker run -p 8080:INNER/tcp"), "{:?}", found.remedy);
        assert!(found.remedy.iter().all(|line| !line.contains("start the server")), "{:?}", found.remedy);
    }

    #[test]
    fn the_daemon_s_own_socket_is_no_server() {
        let mut journey = samples::healthy().journey;
        journey.facts.not_accepted = true;
        let keeper = Listener { command: Some("dockerd".to_owned()), queue: 1, ..listener("0.0.0.0") };
        let found = expect(&journey, &with_listeners(vec![keeper.clone()]), Code::NotAccepted, Inferred);
        assert!(found.summary.contains("only with dockerd (pid 412), which keeps the port for a container"), "{}", found.summary);
        let known = Evidence { published: Some(published(true)), ..with_listeners(vec![keeper]) };
        let found = expect(&journey, &known, Code::NotAccepted, Inferred);
        assert!(found.summary.contains("keeps the port for the container web"), "{}", found.summary);
        assert_eq!(found.remedy[1..], ["sudo service docker restart", "docker start web"]);
    }
}
