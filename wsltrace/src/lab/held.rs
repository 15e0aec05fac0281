//! A table of nftables that belongs to this process: the kernel lets nobody else change it.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, NfTablesMessage, TableAttribute, TableFlags, TableMessage,
};

use super::{Lab, LabError};
use crate::evidence::rules::OwnTable;

const NF_DROP: u32 = 0;

/// Has WSL's input dropped by the policy of a chain of such a table, as long as the lab lives.
pub(super) fn hold_a_dropping_table(lab: &mut Lab) -> Result<(), LabError> {
    let name = "held".to_owned();
    let table = vec![TableAttribute::Name(name.clone()), TableAttribute::Flags(TableFlags::Owner)];
    let place = vec![Hook::Number(InetHookNumber::LocalIn.into()), Hook::Priority(0)];
    let chain = vec![
        ChainAttribute::Table(name),
        ChainAttribute::Name("input".to_owned()),
        ChainAttribute::Hook(place),
        ChainAttribute::Policy(NF_DROP),
        ChainAttribute::Type("filter".to_owned()),
    ];
    let messages = vec![
        NfTablesMessage::NewTable(TableMessage { attributes: table }),
        NfTablesMessage::NewChain(ChainMessage { attributes: chain }),
    ];
    let held = lab.wsl.run(|| OwnTable::make(messages).map_err(LabError::io("make a table that belongs to this process")))?;
    lab.keep(held);
    Ok(())
}
