//! What a rule does.

use std::net::IpAddr;

use super::options::value_and_mask;
use crate::simulate::ruleset::{Known, Mark, Source, Statement, Target, Tproxy, Verdict};
use crate::simulate::unknown;
use crate::simulate::value::{Field, Operand, Step};

/// Targets after which the packet goes on as before.
const HARMLESS: [&str; 21] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "TRACE",
    "TOS",
    "DSCP",
    "TTL",
    "HL",
    "ECN",
    "TCPMSS",
    "TCPOPTSTRIP",
    "CLASSIFY",
    "CHECKSUM",
    "SET",
    "AUDIT",
    "TEE",
    "SECMARK",
    "CONNSECMARK",
    "RATEEST",
    "LED",
    "IDLETIMER",
];

pub(super) fn read(target: &str, options: &[&str]) -> Vec<Statement> {
    let after = |name: &str| options.iter().position(|word| *word == name).and_then(|at| options.get(at + 1)).copied();
    let verdict = |verdict| vec![Statement::Verdict(verdict)];
    match target {
        "ACCEPT" => verdict(Verdict::Accept),
        "DROP" => verdict(Verdict::Drop),
        "REJECT" => verdict(Verdict::Reject),
        "RETURN" => verdict(Verdict::Return),
        "QUEUE" | "NFQUEUE" => verdict(Verdict::Queue),
        "MARK" => vec![mark(Mark::Packet, after("--set-xmark"))],
        "CONNMARK" => vec![connection_mark(options, &after)],
        "DNAT" => vec![after("--to-destination").map_or(Statement::Anything(unknown::TARGET), dnat)],
        "NETMAP" => vec![Statement::Dnat(Source::Constant(Target { address: Some(Known::No), port: None }))],
        "REDIRECT" => vec![Statement::Redirect(after("--to-ports").map(|text| text.parse().map_or(Known::No, Known::Yes)))],
        "SNAT" | "MASQUERADE" => vec![Statement::Snat],
        "NOTRACK" => vec![Statement::NoTrack],
        "CT" if options.contains(&"--notrack") => vec![Statement::NoTrack],
        "CT" => vec![Statement::Template],
        "TPROXY" => {
            // 0 is the packet's own.
            let port = after("--on-port").filter(|text| *text != "0").map(|text| text.parse().map_or(Known::No, Known::Yes));
            vec![Statement::Tproxy(Tproxy { name: unknown::named(target, unknown::TARGET), port, is_final: true })]
        }
        "SYNPROXY" => vec![Statement::Anything(unknown::named(target, unknown::TARGET))],
        _ if HARMLESS.contains(&target) => Vec::new(),
        // Targets of the kernel are in capitals, and so may be the names of chains: whether there is such a chain is looked up
        // when a packet comes to it.
        chain => verdict(Verdict::Jump(chain.to_owned())),
    }
}

/// `--set-xmark value/mask`: the mask's bits are cleared and then the value's are flipped.
fn mark(of: Mark, text: Option<&str>) -> Statement {
    let (keep, flip) = match text.and_then(value_and_mask) {
        Some((value, bits)) => (!bits, Source::Constant(value)),
        None => (0, Source::Unknown(unknown::MARK)),
    };
    Statement::SetMark { mark: of, keep, flip }
}

fn connection_mark<'a>(options: &[&str], after: &impl Fn(&str) -> Option<&'a str>) -> Statement {
    if let Some(text) = after("--set-xmark") {
        return mark(Mark::Connection, Some(text));
    }
    let mask = |name: &str| after(name).map_or(Some(u32::MAX), |text| value_and_mask(text).map(|(mask, _)| mask));
    let (Some(packet), Some(connection)) = (mask("--nfmask"), mask("--ctmask")) else {
        return Statement::Anything(unknown::TARGET);
    };
    let copy = |to, from, of_to: u32, of_from: u32| {
        let steps = vec![Step::And(of_from.into())];
        Statement::SetMark { mark: to, keep: !of_to, flip: Source::Field(Operand { field: from, steps }) }
    };
    if options.contains(&"--save-mark") {
        copy(Mark::Connection, Field::Mark, connection, packet)
    } else if options.contains(&"--restore-mark") {
        copy(Mark::Packet, Field::ConnectionMark, packet, connection)
    } else {
        Statement::Anything(unknown::TARGET)
    }
}

/// `1.2.3.4:80`, `[fd00::2]:80`, `:80`, or a range of either.
fn dnat(text: &str) -> Statement {
    let (address, port) = if let Ok(address) = text.parse::<IpAddr>() {
        (Some(Known::Yes(address)), None)
    } else {
        let (address, port) = match text.rsplit_once(':') {
            Some((address, port))
                if text.contains(']') == address.ends_with(']') && !address.trim_matches(['[', ']']).is_empty() =>
            {
                (Some(address), Some(port))
            }
            Some(("", port)) => (None, Some(port)),
            _ => (Some(text), None),
        };
        let address = address.map(|text| text.trim_matches(['[', ']']).parse().map_or(Known::No, Known::Yes));
        (address, port.map(|text| text.parse().map_or(Known::No, Known::Yes)))
    };
    Statement::Dnat(Source::Constant(Target { address, port }))
}
