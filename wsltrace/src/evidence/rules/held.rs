//! Tables that belong to a program (nft's `flags owner`): the kernel lets nobody else change them, and they go with its socket.

use std::io;
use std::time::Duration;

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use serde::{Deserialize, Serialize};

use super::super::sockets;
use super::questions::{family_of, message, unless_absent};
use super::{family_name, inside};
use crate::evidence::Rule;
use crate::kernel::netlink;
use crate::kernel::netns::Netns;

/// How long the search for its process may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The program that a table belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableHolder {
    /// Its process, when /proc shows one that holds the socket.
    pub pid: Option<u32>,
    /// That process's name, as the kernel has it.
    pub command: Option<String>,
}

/// The program that the table of a rule belongs to; `None` for one that whoever may change rules can change.
pub(in crate::evidence) fn table_holder(netns: &Netns, rule: &Rule) -> io::Result<Option<TableHolder>> {
    let Some(port) = inside(netns, || owner_port(rule))? else { return Ok(None) };
    // What a thread's own folder shows is of the namespace that it is in.
    let sockets = inside(netns, || std::fs::read_to_string("/proc/thread-self/net/netlink"))?;
    let Some(inode) = socket_of(&sockets, port) else { return Ok(Some(TableHolder::default())) };
    let owner = sockets::owners(&[inode], LIMIT).remove(&inode);
    Ok(Some(TableHolder { pid: owner.as_ref().map(|owner| owner.pid), command: owner.map(|owner| owner.command) }))
}

/// Families and names of the tables that belong to programs.
pub(crate) fn held_tables(netns: &Netns) -> io::Result<Vec<(String, String)>> {
    let question = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let all =
        inside(netns, || unless_absent(netlink::dump(NETLINK_NETFILTER, &message(NetfilterProtoFamily::Unspec, question))))?;
    let held = |answer: NetfilterMessage| {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = answer.inner else { return None };
        table.attributes.iter().find(|of| matches!(of, TableAttribute::Owner(_)))?;
        let name =
            table.attributes.iter().find_map(|of| if let TableAttribute::Name(name) = of { Some(name.clone()) } else { None });
        Some((family_name(answer.header.family).to_owned(), name?))
    };
    Ok(all.unwrap_or_default().into_iter().filter_map(held).collect())
}

/// The netlink port of the socket that a table belongs to.
fn owner_port(rule: &Rule) -> io::Result<Option<u32>> {
    let Some(family) = family_of(&rule.family) else { return Ok(None) };
    let question = TableMessage { attributes: vec![TableAttribute::Name(rule.table.clone())] };
    let answer = netlink::ask(NETLINK_NETFILTER, message(family, NfTablesMessage::GetTable(question)));
    // It went meanwhile.
    let Some(answer) = unless_absent(answer)? else { return Ok(None) };
    let answer: NetfilterMessage = answer;
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = answer.inner else { return Ok(None) };
    Ok(table.attributes.iter().find_map(|of| if let TableAttribute::Owner(port) = of { Some(*port) } else { None }))
}

/// The inode number of a netfilter socket, by the kernel's list: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
fn socket_of(list: &str, port: u32) -> Option<u64> {
    let wanted = [NETLINK_NETFILTER.to_string(), port.to_string()];
    let line = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.get(1..3) == Some(&wanted.each_ref().map(String::as_str)[..]))?;
    line.get(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::socket_of;

    #[test]
    fn a_socket_is_found_by_its_port_among_those_of_netfilter() {
        let list = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                    0000000000000000 0   412        00000000 0        0        0     2        0        100\n\
                    0000000000000000 12  412        00000000 0        0        0     2        0        101\n\
                    0000000000000000 12  4122       00000000 0        0        0     2        0        102\n";
        assert_eq!(socket_of(list, 412), Some(101));
        assert_eq!(socket_of(list, 4122), Some(102));
        assert_eq!(socket_of(list, 41), None);
    }
}
