//! pcapng: the SYNs, and the SYN-ACK or RST that answered, as packets where they crossed a device, each with the verdict in a
//! comment. Headers are rebuilt from what was traced; fields that were not traced are 0.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::PacketBuilder;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};

use super::{Export, Out, words};
use crate::escape::escape;
use crate::journey::{Journey, Stage, StageVisit};
use crate::output::contract::SummaryLine;
use crate::output::{Report, words::duration};
use crate::recording::{End, Header};

/// Journeys are told when they end, up to some seconds after their SYN: packets wait so long for earlier ones.
const LATEST: Duration = Duration::from_secs(5);
/// No more packets wait, whatever their times.
const WAITING: usize = 4096;
/// Digits of a second in the times.
const NANOSECONDS: u8 = 9;
/// The hop limit of the rebuilt headers: it was not traced.
const HOPS: u8 = 64;

pub(super) struct Pcapng {
    out: State,
    /// Where tracing began.
    netns: u32,
    interfaces: HashMap<(u32, Option<String>), u32>,
    waiting: BinaryHeap<Reverse<Packet>>,
    /// Breaks ties between packets of one instant: they keep their order.
    count: u64,
    newest: Duration,
}

/// The library writes the section's header when it is made.
enum State {
    Before(Option<Out>),
    Going(PcapNgWriter<Out>),
}

/// Ordered by time, then by the order of their making.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    time: Duration,
    count: u64,
    interface: u32,
    data: Vec<u8>,
    comment: String,
}

impl Pcapng {
    pub(super) fn new(out: Out) -> Self {
        Self {
            out: State::Before(Some(out)),
            netns: 0,
            interfaces: HashMap::new(),
            waiting: BinaryHeap::new(),
            count: 0,
            newest: Duration::ZERO,
        }
    }

    fn write<'a>(&mut self, block: impl PcapNgBlock<'a>) -> io::Result<()> {
        match &mut self.out {
            State::Going(writer) => writer.write_pcapng_block(block).map(drop).map_err(failed),
            State::Before(_) => Err(io::Error::other("a packet before the header")),
        }
    }

    /// The number of an interface; describes it when it is new.
    fn interface(&mut self, visit: &StageVisit) -> io::Result<u32> {
        let key = (visit.netns, visit.interface.as_deref().map(str::to_owned));
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let number = u32::try_from(self.interfaces.len()).map_err(io::Error::other)?;
        let place = if visit.netns == self.netns { "the traced network namespace" } else { "network namespace" };
        let description = format!("{}, {place} {}", words::interface(visit.interface.as_deref()), visit.netns);
        let name = visit.interface.as_deref().map_or_else(|| format!("netns-{}", visit.netns), escape);
        self.write(InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfDescription(description.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        self.interfaces.insert(key, number);
        Ok(number)
    }

    fn packets(&mut self, report: &Report) -> io::Result<()> {
        let journey = &report.journey;
        let Some(first) = since_epoch(journey.time) else { return Ok(()) };
        let about = about(report);
        let of_syn = ..journey.answer.unwrap_or(journey.stages.len());
        let crossings = journey.stages.iter().enumerate();
        let crossings = crossings.filter(|(index, visit)| is_device(visit.stage) && !is_loop(journey, *index));
        let mut seen: Vec<usize> = crossings.map(|(index, _)| index).collect();
        // A SYN that never came to a device is shown where it was first.
        if !seen.iter().any(|index| of_syn.contains(index)) && !journey.stages.is_empty() {
            seen.insert(0, 0);
        }
        for index in seen {
            let Some(visit) = journey.stages.get(index) else { continue };
            let data = if of_syn.contains(&index) { Some(syn(journey, index)) } else { answer(journey, visit) };
            let Some(data) = data.transpose()? else { continue };
            let comment = format!("{about}\nthis packet: {} on {}", visit.stage, words::interface(visit.interface.as_deref()));
            let interface = self.interface(visit)?;
            let time = first + Duration::from_nanos(visit.ns);
            self.newest = self.newest.max(time);
            self.count += 1;
            self.waiting.push(Reverse(Packet { time, count: self.count, interface, data, comment }));
        }
        self.pass_on(false)
    }

    /// Writes the packets that no earlier one can come before, or all.
    fn pass_on(&mut self, all: bool) -> io::Result<()> {
        let due = self.newest.saturating_sub(LATEST);
        while let Some(Reverse(packet)) = self.waiting.peek() {
            if !all && packet.time > due && self.waiting.len() <= WAITING {
                break;
            }
            let Some(Reverse(packet)) = self.waiting.pop() else { break };
            self.write(EnhancedPacketBlock {
                interface_id: packet.interface,
                timestamp: packet.time,
                original_len: u32::try_from(packet.data.len()).map_err(io::Error::other)?,
                data: Cow::Owned(packet.data),
                options: vec![EnhancedPacketOption::Comment(packet.comment.into())],
            })?;
        }
        Ok(())
    }
}

impl Export for Pcapng {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        let State::Before(out) = &mut self.out else { return Ok(()) };
        let Some(out) = out.take() else { return Ok(()) };
        self.netns = header.armed.netns;
        let machine = &header.machine;
        let mode = machine.mode.as_ref().map(|mode| format!(", WSL networking mode {mode}")).unwrap_or_default();
        let comment = format!(
            "SYNs traced by wsltrace {} on Linux {}{mode}. Headers are rebuilt from the trace: fields that it does not know are 0. \
             Every packet's comment tells how its journey ended.",
            header.wsltrace, machine.kernel
        );
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            major_version: 1,
            minor_version: 0,
            section_length: -1,
            options: vec![
                SectionHeaderOption::Comment(escape(&comment).into()),
                SectionHeaderOption::Hardware(escape(&machine.architecture).into()),
                SectionHeaderOption::OS(escape(&format!("Linux {}", machine.kernel)).into()),
                SectionHeaderOption::UserApplication(escape(&format!("wsltrace {}", header.wsltrace)).into()),
            ],
        };
        self.out = State::Going(PcapNgWriter::with_section_header(out, section).map_err(failed)?);
        Ok(())
    }

    fn journey(&mut self, report: &Report) -> io::Result<()> {
        self.packets(report)
    }

    fn end(&mut self, _end: Option<&End>, _summary: &SummaryLine) -> io::Result<()> {
        self.pass_on(true)?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            State::Going(writer) => writer.get_mut().flush(),
            State::Before(Some(out)) => out.flush(),
            State::Before(None) => Ok(()),
        }
    }
}

fn failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn since_epoch(time: jiff::Timestamp) -> Option<Duration> {
    Duration::try_from(time.duration_since(jiff::Timestamp::UNIX_EPOCH)).ok()
}

fn is_device(stage: Stage) -> bool {
    matches!(stage, Stage::TcIngress | Stage::TcEgress)
}

/// Whether a packet comes in by the device that it has just left by: `lo` has it once, and readers would take it for sent again.
fn is_loop(journey: &Journey, index: usize) -> bool {
    let before = index.checked_sub(1).and_then(|before| journey.stages.get(before));
    before.zip(journey.stages.get(index)).is_some_and(|(before, visit)| {
        (before.stage, visit.stage) == (Stage::TcEgress, Stage::TcIngress)
            && (before.netns, &before.interface) == (visit.netns, &visit.interface)
    })
}

/// The comment of every packet of a journey.
fn about(report: &Report) -> String {
    let journey = &report.journey;
    let mut lines = vec![
        format!("{}, {}", words::outcome(journey), words::finding(report)),
        format!("journey {}, attempt {}, {}", journey.id, journey.attempt, words::ends(journey)),
    ];
    if let Some(reason) = &journey.reason {
        let at = journey.location.as_ref().map(|location| format!(" at {location}")).unwrap_or_default();
        lines.push(escape(&format!("kernel: {reason}{at}")));
    }
    if let Some(text) = report.evidence.rule.as_ref().and_then(|rule| rule.text.as_ref()) {
        lines.push(escape(&format!("rule: {text}")));
    }
    let stages: Vec<String> = journey.stages.iter().map(|visit| format!("{} +{}", visit.stage, duration(visit.ns))).collect();
    lines.push(format!("stages: {}", stages.join(", ")));
    if !report.diagnosis.remedy.is_empty() {
        lines.push(escape(&format!("mend it: {}", report.diagnosis.remedy.join("; "))));
    }
    if !journey.complete {
        lines.push("records of this journey may be missing".to_owned());
    }
    lines.join("\n")
}

/// The SYN as it looked at a stage: rewritten by what stands before it on its way.
fn syn(journey: &Journey, index: usize) -> io::Result<Vec<u8>> {
    let flow = &journey.flow;
    let before = |stages: &[Stage]| journey.stages.iter().take(index).any(|visit| stages.contains(&visit.stage));
    let mut from = (flow.source, flow.source_port);
    let mut to = (flow.destination, flow.destination_port);
    if let Some(translated) = &journey.translated {
        if before(&[Stage::Dnat, Stage::OutputNat]) {
            to = (translated.destination, translated.destination_port);
        }
        if before(&[Stage::Snat]) {
            from = (translated.source, translated.source_port);
        }
    }
    segment(from, to, Tcp::syn, flow.sequence)
}

/// The answer as it looked at a device; `None` when it was neither a SYN-ACK nor a reset.
fn answer(journey: &Journey, visit: &StageVisit) -> Option<io::Result<Vec<u8>>> {
    let flow = &journey.flow;
    let mut from = (flow.destination, flow.destination_port);
    let mut to = (flow.source, flow.source_port);
    // It has the client's view of the addresses only where it leaves towards it.
    let is_restored = visit.netns == journey.netns && (visit.stage == Stage::TcEgress || visit.interface == journey.interface);
    if let Some(translated) = journey.translated.as_ref().filter(|_| !is_restored) {
        from = (translated.destination, translated.destination_port);
        to = (translated.source, translated.source_port);
    }
    let acknowledged = flow.sequence.wrapping_add(1);
    if journey.facts.syn_ack {
        Some(segment(from, to, |tcp| tcp.syn().ack(acknowledged), 0))
    } else if journey.facts.reset {
        Some(segment(from, to, |tcp| tcp.rst().ack(acknowledged), 0))
    } else {
        None
    }
}

type Tcp = etherparse::PacketBuilderStep<etherparse::TcpHeader>;

/// An IP packet with a TCP header and no data.
fn segment(from: (IpAddr, u16), to: (IpAddr, u16), flags: impl Fn(Tcp) -> Tcp, sequence: u32) -> io::Result<Vec<u8>> {
    let builder = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        (from, to) => PacketBuilder::ipv6(v6(from), v6(to), HOPS),
    };
    let tcp = flags(builder.tcp(from.1, to.1, sequence, 0));
    let mut data = Vec::with_capacity(tcp.size(0));
    tcp.write(&mut data, &[]).map_err(io::Error::other)?;
    Ok(data)
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
