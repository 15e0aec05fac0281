//! Containers in containers, as in kind, k3d, or Docker in Docker: the port is published twice, and the server stands two bridges away.

use std::net::SocketAddr;

use nix::errno::Errno;

use super::forwarding::{INNER_PORT, dnat_answered, publish};
use super::{Expect, Scenario, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::Stage;
use crate::lab::mend::Mended;
use crate::lab::path::{answer, back_through, into_container_up_to, into_pod, into_pod_up_to};
use crate::lab::sides::{CONTAINER, POD};
use crate::lab::{Lab, LabError, Seen, Side, Step};

const GROUP: &str = "containers in containers";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![answered(), refused(), dropped(), dropped_in_node()]
}

fn answered() -> Scenario {
    let base = template("pod-answered", "nothing is broken: the port is published from a pod in a container (kind)", GROUP);
    let established = [Step::Must(Stage::Established), Step::May(Stage::Accepted)].to_vec();
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Pod),
        break_it: |lab| {
            serve_all(lab, Side::Pod, INNER_PORT)?;
            publish_pod(lab)
        },
        expect: Expect {
            path: [into_pod(), vec![Step::Must(Stage::SynAck)], answer(), back_through(), back_through(), established].concat(),
            ..dnat_answered().expect
        },
        ..base
    }
}

fn refused() -> Scenario {
    let base = template("pod-no-listener", "the port is published from a pod in a container, where nothing listens", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Pod),
        break_it: |lab| publish_pod(lab),
        client: Seen::Failed(Errno::ECONNREFUSED),
        expect: Expect {
            codes: &[Code::NoListener],
            proved: true,
            path: [into_pod(), answer(), back_through(), back_through()].concat(),
            ..base.expect.refused_by_kernel(Side::Pod)
        },
        ..base
    }
}

fn dropped() -> Scenario {
    let base = template("pod-drop", "the port is published from a pod in a container, whose firewall drops", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Pod),
        break_it: |lab| {
            serve_all(lab, Side::Pod, INNER_PORT)?;
            publish_pod(lab)?;
            let rule = format!("tcp dport {INNER_PORT} drop");
            lab.side(Side::Pod)?.nft(lab.family(), "type filter hook input priority filter", &rule)
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            proved: true,
            firewall: Some((Backend::Nft, "input")),
            path: into_pod_up_to(Stage::InputFilter),
            ..base.expect.dropped_by_netfilter(Stage::InputFilter, Side::Pod)
        },
        ..base
    }
}

/// As a policy of Kubernetes' network does.
fn dropped_in_node() -> Scenario {
    let base = template("pod-drop-in-node", "the port is published from a pod, and its node's FORWARD chain drops", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Pod),
        break_it: |lab| {
            serve_all(lab, Side::Pod, INNER_PORT)?;
            publish_pod(lab)?;
            let rule = format!("tcp dport {INNER_PORT} drop");
            let node = lab.side(Side::Container)?;
            node.nft_script(&format!(
                "table ip node {{\n chain forward {{\n type filter hook forward priority filter;\n {rule}\n }}\n}}\n"
            ))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            proved: true,
            firewall: Some((Backend::Nft, "forward")),
            path: [into_container_up_to(Stage::Routing), crate::lab::path::forwarded_up_to(Stage::ForwardFilter)].concat(),
            ..base.expect.dropped_by_netfilter(Stage::ForwardFilter, Side::Container)
        },
        ..base
    }
}

/// Publishes the pod's port from its node, and the node's from WSL; the same number, so that no rule needs another.
fn publish_pod(lab: &Lab) -> Result<(), LabError> {
    publish(lab, CONTAINER)?;
    let node = lab.side(Side::Container)?;
    node.set_sysctl("net.ipv4.ip_forward", "1")?;
    let rule = format!("tcp dport {INNER_PORT} dnat to {}", SocketAddr::new(lab.at(POD), INNER_PORT));
    node.nft(lab.family(), "type nat hook prerouting priority dstnat", &rule)
}
