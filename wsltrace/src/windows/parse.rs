//! The script's JSON into facts. It comes from another machine by a pipe that may break: whatever is missing, of another type or
//! out of range makes its own question unknown, and nothing else.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::netsh;
use super::{
    Action, DynamicPorts, ExcludedRange, Families, FirewallProfile, HypervFirewall, HypervRule, InteropError, Portproxy,
};
use super::{Service, Told, WindowsAddress, WindowsFacts, WindowsListener, WindowsVersion};
use crate::wsl::config;

/// Longest answer that is read, bytes.
const MAX_LEN: usize = 4 << 20;
/// Most entries of a list that are kept.
const MAX_ENTRIES: usize = 10_000;

/// Reads the script's answer; an error when it is none at all.
pub fn parse(text: &str) -> Result<WindowsFacts, InteropError> {
    if text.len() > MAX_LEN {
        return Err(InteropError::Garbage(format!("an answer of {} bytes", text.len())));
    }
    // A profile or a policy may print something before; the object is the last line that looks like one.
    let object = text.lines().rev().map(|line| line.trim_start_matches('\u{feff}').trim()).find(|line| line.starts_with('{'));
    let Some(object) = object else {
        return Err(InteropError::Garbage("no JSON in the answer".to_owned()));
    };
    let answers: Map<String, Value> = serde_json::from_str(object).map_err(|error| InteropError::Garbage(error.to_string()))?;
    let answers = Answers(answers);
    Ok(WindowsFacts {
        version: answers.one("version", version),
        portproxy: answers.all("portproxy", portproxy),
        listeners: answers.all("listeners", listener),
        excluded_v4: answers.excluded("excluded_v4"),
        excluded_v6: answers.excluded("excluded_v6"),
        dynamic_ports: answers.one("dynamic_ports", |text| -> Option<DynamicPorts> { netsh::dynamic_ports(text.as_str()?) }),
        iphlpsvc: answers.one("iphlpsvc", service),
        firewall_profiles: answers.all("firewall_profiles", profile),
        hyperv_firewall: answers.at_most_one("hyperv_firewall", hyperv_firewall),
        hyperv_rules: answers.all("hyperv_rules", hyperv_rule),
        vethernet: answers.all("vethernet", address),
        wslconfig: answers.at_most_one("wslconfig", |text| Some(config::decode(&STANDARD.decode(text.as_str()?).ok()?))),
        wslconfig_txt: answers.one("wslconfig_txt", Value::as_bool),
    })
}

struct Answers(Map<String, Value>);

impl Answers {
    /// What was answered to a question.
    fn list(&self, name: &str) -> Told<&[Value]> {
        let Some(answer) = self.0.get(name) else { return Told::Unknown("the answer is missing".to_owned()) };
        match (answer.get("ok"), answer.get("error")) {
            (Some(Value::Array(values)), _) => Told::Known(values),
            (Some(Value::Null), _) => Told::Known(&[]),
            // An older PowerShell may tell of a list as of an object with a number and a list.
            (Some(Value::Object(list)), _) if list.contains_key("Count") => match list.get("value") {
                Some(Value::Array(values)) => Told::Known(values),
                _ => not_understood(),
            },
            (Some(value), _) => Told::Known(std::slice::from_ref(value)),
            (None, Some(Value::String(error))) if !error.trim().is_empty() => Told::Unknown(error.trim().to_owned()),
            _ => Told::Unknown("it failed without a reason".to_owned()),
        }
    }

    /// A list of which every entry must be understood: with one left out it would say that something is not there.
    fn all<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Told<Vec<T>> {
        let values = match self.list(name) {
            Told::Known(values) => values,
            Told::Unknown(why) => return Told::Unknown(why),
        };
        if values.len() > MAX_ENTRIES {
            return Told::Unknown(format!("{} entries are too many", values.len()));
        }
        values.iter().map(read).collect::<Option<Vec<T>>>().map_or_else(not_understood, Told::Known)
    }

    fn at_most_one<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Told<Option<T>> {
        match self.all(name, read) {
            Told::Known(list) => Told::Known(list.into_iter().next()),
            Told::Unknown(why) => Told::Unknown(why),
        }
    }

    fn one<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Told<T> {
        match self.at_most_one(name, read) {
            Told::Known(Some(answer)) => Told::Known(answer),
            Told::Known(None) => Told::Unknown("the answer is empty".to_owned()),
            Told::Unknown(why) => Told::Unknown(why),
        }
    }

    fn excluded(&self, name: &str) -> Told<Vec<ExcludedRange>> {
        self.one(name, |text| netsh::excluded(text.as_str()?))
    }
}

fn not_understood<T>() -> Told<T> {
    Told::Unknown("the answer was not understood".to_owned())
}

/// A value as the type that is wanted; `None` when it is of another.
fn of<'a, T: Deserialize<'a>>(value: &'a Value, name: &str) -> Option<T> {
    T::deserialize(value.get(name)?).ok()
}

/// A string that says something.
fn text(value: &Value, name: &str) -> Option<String> {
    of::<String>(value, name).filter(|text| !text.is_empty())
}

fn version(value: &Value) -> Option<WindowsVersion> {
    let build = text(value, "build")?.parse().ok()?;
    let update = text(value, "update").and_then(|update| update.parse().ok());
    Some(WindowsVersion { build, update, release: text(value, "release") })
}

fn portproxy(value: &Value) -> Option<Portproxy> {
    // `0.0.0.0/8080`, and for IPv6 `::/8080`.
    let end = |name: &str| -> Option<(String, u16)> {
        let text = text(value, name)?;
        let (address, port) = text.rsplit_once('/')?;
        Some((address.trim().to_owned(), port.trim().parse().ok()?))
    };
    let (listen_address, listen_port) = end("listen")?;
    let (connect_address, connect_port) = end("connect")?;
    Some(Portproxy { families: of::<Families>(value, "families")?, listen_address, listen_port, connect_address, connect_port })
}

/// An address that Windows tells, perhaps with a zone (`fe80::1%12`).
fn ip(value: &Value, name: &str) -> Option<IpAddr> {
    text(value, name)?.split('%').next()?.parse().ok()
}

fn listener(value: &Value) -> Option<WindowsListener> {
    Some(WindowsListener {
        address: ip(value, "address")?,
        port: of(value, "port")?,
        pid: of(value, "pid")?,
        process: text(value, "process"),
        services: match value.get("services") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(name)) => vec![name.clone()],
            _ => Vec::new(),
        },
    })
}

/// `System.ServiceProcess.ServiceControllerStatus`, `ServiceStartMode`.
fn service(value: &Value) -> Option<Service> {
    Some(Service { running: of::<u32>(value, "status")? == 4, disabled: of::<u32>(value, "start")? == 4 })
}

/// The firewall's actions, by their numbers.
fn action(value: &Value, name: &str) -> Option<Action> {
    match of::<u32>(value, name)? {
        0 => Some(Action::NotConfigured),
        2 => Some(Action::Allow),
        4 => Some(Action::Block),
        _ => None,
    }
}

/// `GpoBoolean`: false, true, and 2 for what is not set.
fn gpo_boolean(value: &Value, name: &str) -> Option<bool> {
    match of::<u32>(value, name)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn profile(value: &Value) -> Option<FirewallProfile> {
    Some(FirewallProfile {
        name: text(value, "name")?,
        enabled: gpo_boolean(value, "enabled"),
        inbound: action(value, "inbound")?,
    })
}

fn hyperv_firewall(value: &Value) -> Option<HypervFirewall> {
    Some(HypervFirewall {
        enabled: gpo_boolean(value, "enabled"),
        inbound: action(value, "inbound")?,
        merges_host_rules: gpo_boolean(value, "merge"),
    })
}

fn hyperv_rule(value: &Value) -> Option<HypervRule> {
    Some(HypervRule {
        name: of(value, "name")?,
        action: action(value, "action")?,
        protocol: of(value, "protocol")?,
        local_ports: match value.get("ports") {
            Some(Value::Array(ports)) => ports.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(ports)) => vec![ports.clone()],
            _ => Vec::new(),
        },
    })
}

fn address(value: &Value) -> Option<WindowsAddress> {
    let prefix = of(value, "prefix")?;
    Some(WindowsAddress { adapter: text(value, "adapter")?, address: ip(value, "address")?, prefix }).filter(|_| prefix <= 32)
}
