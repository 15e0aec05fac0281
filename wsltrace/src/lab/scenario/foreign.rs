//! Somebody else's BPF programs stand where the tracer's do.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use nix::errno::Errno;

use super::{Expect, Scenario, UNACCEPTED, serve, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::cgroup::Cgroup;
use crate::lab::foreign::{Attach, Foreign};
use crate::lab::path::{answer, inbound, up_to_answer};
use crate::lab::{Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side, Step};

const GROUP: &str = "foreign programs";
const XDP_PASS: i32 = 2;
const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const NF_DROP: i32 = 0;
const SK_DROP: i32 = 0;
const INPUT: u32 = 1;
const PREROUTING: u32 = 0;
/// The first priority that the kernel takes, which the tracer would like to have too.
const FIRST: i32 = i32::MIN + 1;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        xdp(),
        tcx_pass(),
        tcx_drop(),
        netfilter_drop(),
        netfilter_drop_first(),
        steered(),
        lookup_drop(),
        lookup_drop_beside(),
        cgroup_ingress(),
        cgroup_egress(),
    ]
}

fn xdp() -> Scenario {
    Scenario {
        break_it: |lab| beside_a_server(lab, Attach::Xdp("eth0"), XDP_PASS),
        note: "an XDP program on eth0 runs before the probes",
        ..template("foreign-xdp", "nothing is broken: somebody's XDP program passes everything", GROUP)
    }
}

/// A program that passes a packet ends the way through TCX: what stands behind it sees nothing.
fn tcx_pass() -> Scenario {
    Scenario {
        break_it: |lab| beside_a_server(lab, Attach::TcxIngress("eth0"), TC_ACT_OK),
        ..template("foreign-tcx-pass", "nothing is broken: somebody's BPF program at tc passes everything", GROUP)
    }
}

fn tcx_drop() -> Scenario {
    dies(
        ("foreign-tcx-drop", "somebody's BPF program at tc drops"),
        Stage::TcIngress,
        ("TC_INGRESS", (5, 18)),
        &[Code::TcDrop],
        |lab| beside_a_server(lab, Attach::TcxIngress("eth0"), TC_ACT_SHOT),
    )
}

fn netfilter_drop() -> Scenario {
    dies(
        ("foreign-netfilter-drop", "somebody's BPF program drops in INPUT at priority -10"),
        Stage::InputFilter,
        ("NETFILTER_DROP", (5, 18)),
        &[Code::FirewallDrop],
        |lab| beside_a_server(lab, Attach::Netfilter(INPUT, -10), NF_DROP),
    )
}

/// Ahead of every position: it is not even seen to enter the hook.
fn netfilter_drop_first() -> Scenario {
    let base = dies(
        ("foreign-netfilter-drop-first", "somebody's BPF program drops at the very beginning of PREROUTING"),
        Stage::TcIngress,
        ("NETFILTER_DROP", (5, 18)),
        &[Code::FirewallDrop],
        |lab| beside_a_server(lab, Attach::Netfilter(PREROUTING, FIRST), NF_DROP),
    );
    Scenario { note: "another BPF program runs before the probes in prerouting", ..base }
}

/// Nobody listens on the port: the program gives the connection to a server on another one.
fn steered() -> Scenario {
    let title = "nothing is broken: a BPF program (sk_lookup) gives the connection to another port";
    let base = template("foreign-lookup-steers", title, GROUP);
    Scenario {
        break_it: |lab| {
            let listener = lab.wsl.run(|| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                listener.map_err(LabError::io("listen on some port of 127.0.0.1"))
            })?;
            lab.keep(Foreign::steering(&lab.wsl, listener)?);
            Ok(())
        },
        manner: Manner::Silent,
        expect: Expect { codes: UNACCEPTED, ..base.expect },
        ..base
    }
}

fn lookup_drop() -> Scenario {
    let base = template("foreign-lookup-drops", "somebody's BPF program (sk_lookup) refuses every connection", GROUP);
    Scenario {
        break_it: |lab| beside_a_server(lab, Attach::SocketLookup, SK_DROP),
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::SocketPolicy],
            inferred: true,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

/// A server of the other family has nothing to do with it.
fn lookup_drop_beside() -> Scenario {
    Scenario {
        name: "foreign-lookup-drops-beside",
        title: "somebody's BPF program (sk_lookup) refuses, and a server of the other IP family is there, too",
        v6: true,
        break_it: |lab| {
            serve(lab, Side::Wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT))?;
            beside_a_server(lab, Attach::SocketLookup, SK_DROP)
        },
        ..lookup_drop()
    }
}

/// As systemd's `IPAddressDeny=` does.
fn cgroup_ingress() -> Scenario {
    let base = template("foreign-cgroup-drops", "a BPF program of the server's control group refuses what comes in", GROUP);
    Scenario {
        break_it: |lab| serve_in_cgroup(lab, Attach::CgroupIngress),
        alone: true,
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Listener, Side::Wsl)),
            reason: Some(("SOCKET_FILTER", (5, 18))),
            codes: &[Code::SocketPolicy],
            inferred: true,
            says: "the BPF program stranger of the server's control group",
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

fn cgroup_egress() -> Scenario {
    let title = "a BPF program of the server's control group refuses its answers";
    let base = template("foreign-cgroup-drops-answers", title, GROUP);
    Scenario {
        break_it: |lab| serve_in_cgroup(lab, Attach::CgroupEgress),
        alone: true,
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::Postrouting, Side::Wsl)),
            reason: Some(("BPF_CGROUP_EGRESS", (5, 18))),
            codes: &[Code::ReplyDropped],
            proved: true,
            says: "by the BPF program stranger of the server's control group",
            path: [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], up_to_answer(Stage::Snat)].concat(),
            ..base.expect
        },
        ..base
    }
}

fn serve_in_cgroup(lab: &mut Lab, attach: Attach) -> Result<(), LabError> {
    let cgroup = Cgroup::new()?;
    let server = cgroup.run(|| Listening::accepting(&lab.wsl, Binding::new(lab.any(), PORT)))?;
    lab.keep(server);
    lab.keep(Foreign::deciding(&cgroup.open()?, attach, 0)?);
    lab.keep(cgroup);
    Ok(())
}

fn dies(
    (name, title): (&'static str, &'static str),
    stage: Stage,
    reason: (&'static str, (u32, u32)),
    codes: &'static [Code],
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        break_it,
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((stage, Side::Wsl)),
            reason: Some(reason),
            codes,
            proved: true,
            path: inbound(stage),
            ..base.expect
        },
        ..base
    }
}

/// A server, and a program that answers everything alike.
fn beside_a_server(lab: &mut Lab, attach: Attach, verdict: i32) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.keep(Foreign::answering(&lab.wsl, attach, verdict)?);
    Ok(())
}
