//! Where the translation of addresses sends packets.

use std::net::IpAddr;

use super::expression::Expression;
use super::registers::{Content, Registers};
use super::rule::{Reader, map};
use crate::simulate::ruleset::{Known, Source, Statement, Target};
use crate::simulate::unknown;

impl Reader<'_> {
    /// The constant that begins in a register, of this length.
    fn constant(&self, register: u32, len: usize) -> Option<&[u8]> {
        match self.registers.at(Registers::place(register)?)? {
            (Content::Constant(bytes), at) => bytes.get(at..at + len),
            _ => None,
        }
    }

    /// A port between those of two settings; `None` when neither is there.
    pub(super) fn port(&self, expression: &Expression, from: u16, to: u16) -> Option<Known<u16>> {
        let first = expression.number(from)?;
        let last = expression.number(to).unwrap_or(first);
        let port = |register| self.constant(register, 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
        Some(port(first).filter(|_| port(first) == port(last)).map_or(Known::No, Known::Yes))
    }

    pub(super) fn nat(&self, expression: &Expression) -> Statement {
        const TYPE: u16 = 1;
        const FAMILY: u16 = 2;
        const ADDRESS: [u16; 2] = [3, 4];
        const PORT: [u16; 2] = [5, 6];
        const FLAGS: u16 = 7;
        const DNAT: u32 = 1;
        const NETMAP: u32 = 0x40;
        if expression.number(TYPE) != Some(DNAT) {
            return Statement::Snat;
        }
        let len = if expression.number(FAMILY) == Some(2) { 4 } else { 16 };
        let own_port = self.port(expression, PORT[0], PORT[1]);
        let Some(first) = expression.number(ADDRESS[0]) else {
            return Statement::Dnat(Source::Constant(Target { address: None, port: own_port }));
        };
        let last = expression.number(ADDRESS[1]).unwrap_or(first);
        let place = Registers::place(first);
        if let Some((Content::Mapped(mapped), 0)) = place.and_then(|place| self.registers.at(place)) {
            if mapped.changes {
                return Statement::Anything(unknown::DESTINATION);
            }
            // The port may stand behind the address in the same entry.
            let inside = expression
                .number(PORT[0])
                .and_then(Registers::place)
                .zip(place)
                .and_then(|(port, start)| port.checked_sub(start));
            let inside = inside.filter(|at| *at > 0 && *at < mapped.len);
            let ends_alike = last == first;
            return Statement::Dnat(map(mapped, |data| {
                let port = match inside {
                    Some(at) => Some(Known::Yes(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))),
                    None => own_port,
                };
                Some(Target { address: Some(Known::Yes(address(data.get(..len)?)?)), port }).filter(|_| ends_alike)
            }));
        }
        let constant = self.constant(first, len).filter(|bytes| self.constant(last, len) == Some(*bytes));
        let known = constant.and_then(address).filter(|_| expression.number(FLAGS).unwrap_or(0) & NETMAP == 0);
        let port = if known.is_some() { own_port } else { own_port.or(Some(Known::No)) };
        Statement::Dnat(Source::Constant(Target { address: Some(known.map_or(Known::No, Known::Yes)), port }))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
