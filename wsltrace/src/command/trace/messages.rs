//! What is told besides the journeys: that tracing has begun, that no SYN came, the summary.

use tokio::sync::oneshot;
use wsltrace_common::Counter;

use super::client::Client;
use super::session::Session;
use crate::cli::TraceArgs;
use crate::command::reporter::{Job, When};
use crate::command::{Failure, printed};
use crate::doctor::Finding;
use crate::evidence::protects_what_comes;
use crate::kernel::names::now_ns;
use crate::output::contract::{self, Absence, Armed, Lost};
use crate::output::{Start, Waited, Why, absence_message};
use crate::probe::{Detail, Probes};
use crate::recording::{Clock, Header, Missed};

impl Session {
    pub(super) async fn say_armed(&mut self, args: &TraceArgs, client: Option<&Client>) -> Result<(), Failure> {
        let armed = Armed {
            r#type: contract::ArmedTag::Armed,
            schema: contract::Version,
            time: contract::Time(jiff::Timestamp::now()),
            netns: self.netns.inum(),
            ports: port_ranges(args),
            detail: match args.detail {
                Detail::Auto => contract::Detail::Auto,
                Detail::Full => contract::Detail::Full,
                Detail::Light => contract::Detail::Light,
            },
            interfaces: self.watched_interfaces(),
            probes_on: self.probes.on().into_iter().map(|(name, count)| contract::ProbeOn { name, count }).collect(),
            probes_missing: self
                .probes
                .missing()
                .iter()
                .map(|missing| contract::ProbeMissing {
                    probe: missing.probe.clone(),
                    reason: missing.reason.clone(),
                    cost: missing.cost.clone(),
                })
                .collect(),
        };
        // Programs are not kept waiting for what only people read.
        let for_people = !args.json && !args.quiet || args.record.is_some() || !args.exports.is_empty();
        let mut start = if for_people { self.surroundings.start(args, !self.followed.is_empty()) } else { Start::default() };
        if let Some(client) = client {
            start.invitation = format!("running {}", client.line);
        }
        let header = Header {
            wsltrace: env!("CARGO_PKG_VERSION").to_owned(),
            machine: self.surroundings.machine(&self.machine.release),
            clock: Clock { wall: armed.time.0, monotonic_ns: now_ns() },
            part: 1,
            armed,
            start,
        };
        let (written, answer) = oneshot::channel();
        self.send(Job::Armed(Box::new(header), written));
        match answer.await {
            Ok(result) => printed(result),
            // The reporter has ended; its own error is told at the end.
            Err(oneshot::error::RecvError { .. }) => Ok(()),
        }
    }

    fn watched_interfaces(&self) -> Vec<contract::Interface> {
        let netns = self.netns.inum();
        self.links.iter().map(|link| contract::Interface { name: link.name.clone(), netns, index: link.index }).collect()
    }

    pub(super) fn say_absence(&mut self, args: &TraceArgs, why: Why) -> Result<(), Failure> {
        let mode = self.surroundings.seen().mode.map(|(mode, _)| mode.name().to_owned());
        let name = |index: u32| {
            self.links.iter().find(|link| link.index == index).map_or_else(|| index.to_string(), |link| link.name.clone())
        };
        let mut near_misses: Vec<contract::NearMiss> = self
            .probes
            .near_misses()?
            .into_iter()
            .filter_map(|(miss, count)| {
                Some(contract::NearMiss { port: u16::try_from(miss.port).ok()?, interface: name(miss.ifindex), count })
            })
            .collect();
        near_misses.sort_by(|a, b| b.count.cmp(&a.count).then(a.port.cmp(&b.port)));
        let of_traced =
            |miss: &&contract::NearMiss| args.ports.iter().any(|range| (range.first..=range.last).contains(&miss.port));
        let waited = Waited {
            why,
            from: args.sources.clone(),
            interfaces: args.interfaces.clone(),
            hidden: self.hidden,
            astray: near_misses.iter().find(of_traced).cloned(),
            protected: self.is_protected(),
        };
        let port = args.ports.first().map_or(0, |range| range.first);
        let found = self.surroundings.examine(&self.netns, port, &self.machine);
        let found = found.iter().map(Finding::in_a_sentence).collect::<Vec<_>>();
        self.send(Job::Absence(Box::new(Missed {
            absence: Absence {
                r#type: contract::AbsenceTag::Absence,
                schema: contract::Version,
                time: contract::Time(jiff::Timestamp::now()),
                seconds: why.duration().as_secs(),
                ports: port_ranges(args),
                interfaces: self.watched_interfaces(),
                message: absence_message(&waited, mode.as_deref(), port, &found),
                mode,
                near_misses,
            },
            waited,
        })));
        Ok(())
    }

    /// Whether `IPsec` keeps what comes in from being read; not where that cannot be found out.
    fn is_protected(&self) -> bool {
        protects_what_comes(&self.netns).unwrap_or_else(|error| {
            log::debug!("cannot list the policies of IPsec: {error}");
            false
        })
    }

    pub(super) fn say_summary(&mut self, when: When) -> Result<Lost, Failure> {
        let lost = lost(&self.probes)?;
        self.send(Job::Summary(now_ns().saturating_sub(self.began_ns), lost, when));
        Ok(lost)
    }
}

/// Records lost so far. A full ring buffer loses nothing: the record waits in the table and is collected from there.
fn lost(probes: &Probes) -> Result<Lost, Failure> {
    let table_full = probes.counter(Counter::TableFull)?;
    let stages_full = probes.counter(Counter::StagesFull)?;
    let keys_full = probes.counter(Counter::KeysFull)?;
    Ok(Lost { table_full, ring_full: 0, stages_full, keys_full, total: table_full + stages_full + keys_full })
}

fn port_ranges(args: &TraceArgs) -> Vec<contract::PortRange> {
    let mut ranges: Vec<contract::PortRange> = Vec::new();
    for range in args.ports.iter().map(|range| contract::PortRange { first: range.first, last: range.last }) {
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}
