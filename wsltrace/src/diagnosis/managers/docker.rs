//! Rules of Docker.

use crate::diagnosis::remedy::Obstacle;
use crate::evidence::Backend;

/// Docker makes its rules when it is started, and never looks again.
const DOCKER_IS_CUT_OFF: &str = "# Docker's own rules are gone from FORWARD, as after `iptables -F` or the reload of another firewall: it makes them anew when it is restarted (containers stop meanwhile), and needs no exception then: sudo service docker restart";

/// Docker's own walls: what they keep apart stays apart.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let Obstacle { rule, port, .. } = obstacle;
    // An exception would open the port of every container to every network, and the answers would still be stopped.
    if rule.is_wall_of_docker() && !rule.is_shield_of_docker() {
        return Some(vec![
            "# Docker keeps its networks apart, and internal ones from everybody; see which network the container is in:".to_owned(),
            "docker network ls".to_owned(),
            "# then connect it to one that the client is in, or to one that is not internal: sudo docker network connect NETWORK CONTAINER"
                .to_owned(),
        ]);
    }
    // Docker has no chain for exceptions there, and would drop behind it what comes past the ports that it publishes.
    if rule.is_shield_of_docker() {
        return Some(vec![
            "# Docker keeps other machines away from its containers' own addresses; see which ports are published:".to_owned(),
            "docker ps".to_owned(),
            format!(
                "# then publish this one where the container is started (docker run -p {port}:{port}), and ask for an address of this machine"
            ),
        ]);
    }
    None
}

/// The command that lets the packets pass, in the chain that Docker has for that.
pub(super) fn open(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    // An exception in its chain for the user's rules would not be met.
    if rule.without_users_chain {
        return Some(obstacle.except().into_iter().chain([DOCKER_IS_CUT_OFF.to_owned()]).collect());
    }
    // That chain is asked in this table only.
    if rule.backend == Backend::Nft || rule.table != "filter" {
        return None;
    }
    let program = obstacle.program();
    // Every container meets that chain.
    let end = if obstacle.answer { "-s" } else { "-d" };
    let server = obstacle.behind().map(|server| format!(" {end} {server}")).unwrap_or_default();
    let allow = format!("{program} -I DOCKER-USER{server} -p tcp {} -j ACCEPT", obstacle.iptables_port());
    // Of its own networks Docker lets the answers pass itself.
    let answers = format!("{program} -I DOCKER-USER -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
    let foreign = obstacle.leaves_by.is_some_and(|device| device != "docker0" && !device.starts_with("br-"));
    Some(foreign.then_some(answers).into_iter().chain([allow]).collect())
}
