//! Socket units of systemd: it listens for a server that it starts with the first connection, and says where in the unit's settings.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Listener;
use crate::kernel::command::output_within;

/// The system's own manager; one of a user has another number, and its units are asked for by that user.
const MANAGER: u32 = 1;
/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// A socket unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SocketUnit {
    /// Its name, such as `web.socket`.
    pub name: String,
    /// All that it listens on for connections, such as `127.0.0.1:8080`.
    pub streams: Vec<String>,
}

/// The socket unit of one of these listeners, where systemd has one.
pub(super) fn unit_of(listeners: &[Listener]) -> io::Result<Option<SocketUnit>> {
    let managed = |listener: &&Listener| listener.pid == Some(MANAGER) && listener.command.as_deref() == Some("systemd");
    let Some(listener) = listeners.iter().find(managed) else { return Ok(None) };
    let mut ask = Command::new("systemctl");
    let text = output_within(LIMIT, ask.args(["show", "*.socket", "--property=Id", "--property=Listen"]))?;
    Ok(parse(&text).into_iter().find(|unit| has(unit, listener)))
}

fn has(unit: &SocketUnit, listener: &Listener) -> bool {
    let end = SocketAddr::new(listener.address, listener.port);
    unit.streams.iter().any(|stream| stream.parse() == Ok(end))
}

/// What `systemctl show` prints of units: a property a line, and an empty line between units.
fn parse(text: &str) -> Vec<SocketUnit> {
    let unit = |block: &str| {
        let values = |key: &'static str| block.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='));
        let name = values("Id").next()?.to_owned();
        let streams = values("Listen").filter_map(|value| value.strip_suffix(" (Stream)")).map(str::to_owned).collect();
        Some(SocketUnit { name, streams })
    };
    text.split("\n\n").filter_map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples::listener;

    #[test]
    fn the_unit_is_the_one_that_listens_there() {
        let text = "Listen=/run/dbus/system_bus_socket (Stream)\nId=dbus.socket\n\n\
                    Id=ssh.socket\nListen=0.0.0.0:22 (Stream)\nListen=[::]:22 (Stream)\n\n\
                    Listen=127.0.0.1:8080 (Stream)\nListen=127.0.0.1:8080 (Datagram)\nId=web.socket\n";
        let units = parse(text);
        assert_eq!(units.len(), 3);
        let mut here = listener("127.0.0.1");
        let found = units.iter().find(|unit| has(unit, &here));
        assert_eq!(found, Some(&SocketUnit { name: "web.socket".to_owned(), streams: vec!["127.0.0.1:8080".to_owned()] }));
        here.port = 22;
        assert!(!units.iter().any(|unit| has(unit, &here)), "it listens on other addresses");
        here.address = std::net::Ipv6Addr::UNSPECIFIED.into();
        assert_eq!(units.iter().find(|unit| has(unit, &here)).map(|unit| unit.streams.len()), Some(2));
        assert_eq!(parse(""), []);
    }

    #[test]
    fn only_the_systems_manager_is_asked() {
        let user = Listener { pid: Some(412), command: Some("systemd".to_owned()), ..listener("127.0.0.1") };
        let other = Listener { pid: Some(1), command: Some("init".to_owned()), ..listener("127.0.0.1") };
        assert!(matches!(unit_of(&[user, other]), Ok(None)));
    }
}
