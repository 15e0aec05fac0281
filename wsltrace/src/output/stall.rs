//! A connection that was made and does not get on: its line of the contract, and its words.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use anstyle::Style;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Verbosity,
    contract::{StallTag, Time, Version},
    verdict::remedy,
    words::{BAD, Page, STRONG, ends, sentence},
};
use crate::{
    diagnosis::{Cause, Confidence, Stall},
    evidence::Connection,
    journey::{Flow, InterfaceName, Journey},
};

/// A connection was made, and then did not get on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StallLine {
    /// The line's type.
    pub r#type: StallTag,
    /// The contract's version.
    pub schema: Version,
    /// When it was seen.
    pub time: Time,
    /// The `id` of the journey that made the connection.
    pub journey: u64,
    /// Addresses and ports of that journey.
    pub flow: Flow,
    /// The interface of the journey's first sight.
    pub interface: Option<InterfaceName>,
    /// Why it does not get on.
    pub cause: Cause,
    /// How often in a row the server's side sent the same data again without an answer.
    pub retransmissions: u32,
    /// How often in a row it asked in vain whether the client takes data again.
    pub probes: u32,
    /// Bytes under way that are not confirmed.
    pub unconfirmed_bytes: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: u32,
    /// The most data that goes into a segment, bytes.
    pub segment_bytes: u32,
    /// The size of the largest packet that the path is taken to carry, bytes.
    pub path_mtu: u32,
    /// How long ago the last acknowledgement came in, milliseconds.
    pub silent_ms: u32,
    /// How sure the cause is: always `inferred`.
    pub confidence: Confidence,
    /// One sentence without its full stop.
    pub summary: String,
    /// Commands, and lines that begin with `#` where no command helps.
    pub remedy: Vec<String>,
}

impl StallLine {
    /// What is told of the connection that this journey made.
    pub fn new(time: jiff::Timestamp, journey: &Journey, connection: &Connection, stall: Stall) -> Self {
        Self {
            r#type: StallTag::Stall,
            schema: Version,
            time: Time(time),
            journey: journey.id,
            flow: journey.flow,
            interface: journey.interface,
            cause: stall.cause,
            retransmissions: connection.retransmissions,
            probes: connection.probes,
            unconfirmed_bytes: connection.unconfirmed_bytes,
            waiting_bytes: connection.waiting_bytes,
            segment_bytes: connection.segment_bytes,
            path_mtu: connection.path_mtu,
            silent_ms: connection.silent_ms,
            confidence: Confidence::Inferred,
            summary: stall.summary,
            remedy: stall.remedy,
        }
    }
}

/// The first of its cause, in full.
pub(super) fn in_full(page: Page, verbosity: Verbosity, line: &StallLine) -> String {
    let mut text = format!("{} {}\n", page.paint(BAD, "\u{2717}"), page.wrap(&ends(&line.flow), 2, 2, Style::new()));
    text.push_str(&format!("  {}\n", page.wrap(&sentence(&line.summary), 2, 2, STRONG)));
    if verbosity != Verbosity::Quiet {
        text.push('\n');
        text.push_str(&page.labelled("finding", &format!("stall: {} (inferred)", line.cause.name())));
        if line.unconfirmed_bytes > 0 || line.waiting_bytes > 0 {
            let counts = format!(
                "{} bytes not confirmed, sent again {} times; {} bytes wait; segments of {} bytes, packets of up to {}",
                line.unconfirmed_bytes, line.retransmissions, line.waiting_bytes, line.segment_bytes, line.path_mtu
            );
            text.push_str(&page.labelled("socket", &counts));
        }
        text.push_str(&page.labelled("more", "wsltrace explain stall"));
        text.push_str(&remedy(page, &line.remedy));
        text.push('\n');
    }
    text
}

/// One more of a cause that was told.
pub(super) fn in_short(line: &StallLine) -> String {
    format!("{}  connected, and does not get on either ({})", ends(&line.flow), line.cause.name())
}
