//! The filters of traffic control at a device's way out, by netlink.

use std::io;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterBpfOption, TcFilterFlowerOption,
    TcFilterMatchAllOption, TcFilterU32Option, TcHandle, TcMessage, TcMirrorActionType, TcOption,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::netlink;
use super::netns::Netns;

/// A filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `u32`, `flower`, `bpf`, ...
    pub kind: String,
    /// Filters are asked in the order of this number (`pref`).
    pub preference: u16,
    /// The name of its BPF program, where it is one.
    pub program: Option<String>,
    /// The numbers of the devices by which it sends packets instead (`mirred egress redirect`).
    pub redirects_to: Vec<u32>,
}

/// The filters that a device's packets meet on their way out (of `clsact`).
pub fn at_egress(netns: &Netns, index: u32) -> io::Result<Vec<Filter>> {
    let mut request = TcMessage::with_index(index.try_into().map_err(io::Error::other)?);
    request.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_EGRESS };
    let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetTrafficFilter(request)))?;
    let filter = |answer| match answer {
        // What comes first stands for all filters of its preference, and has no number.
        RouteNetlinkMessage::NewTrafficFilter(message) if message.header.handle != TcHandle::UNSPEC => of(message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(filter).collect())
}

/// A filter; `None` for a hash table of `u32`, which is listed among them.
fn of(message: TcMessage) -> Option<Filter> {
    // The lower half is the protocol.
    let preference = (message.header.info >> 16) as u16;
    let mut filter = Filter { preference, ..Filter::default() };
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind = kind,
            TcAttribute::Options(options) => {
                if options.iter().any(|option| matches!(option, TcOption::U32(TcFilterU32Option::Divisor(_)))) {
                    return None;
                }
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.program = Some(name),
                        option => filter.redirects_to.extend(actions(&option).iter().filter_map(redirect)),
                    }
                }
            }
            _ => {}
        }
    }
    Some(filter)
}

fn actions(option: &TcOption) -> &[TcAction] {
    match option {
        TcOption::U32(TcFilterU32Option::Action(actions))
        | TcOption::MatchAll(TcFilterMatchAllOption::Action(actions))
        | TcOption::Flower(TcFilterFlowerOption::Actions(actions)) => actions,
        _ => &[],
    }
}

/// The device by which an action sends packets that it takes away.
fn redirect(action: &TcAction) -> Option<u32> {
    let options = action.attributes.iter().filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) if mirror.eaction == TcMirrorActionType::EgressRedir => {
            Some(mirror.ifindex)
        }
        _ => None,
    })
}
