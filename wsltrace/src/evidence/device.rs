//! What is attached to a device: what holds its packets, and programs at tc.

use serde::{Deserialize, Serialize};

/// What was not asked in older recordings.
fn yes() -> bool {
    true
}

/// What a device has packets wait in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Queue {
    /// Whether the device is up.
    pub up: bool,
    /// Whether something is at its other end; without it the kernel has the device send nothing.
    #[serde(default = "yes")]
    pub carrier: bool,
    /// The kind of its root queueing discipline, such as `tbf`.
    pub qdisc: Option<String>,
    /// It is a bridge, which has a carrier where one of its ports has.
    #[serde(default)]
    pub is_bridge: bool,
}

/// A BPF program at tc of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TcProgram {
    /// The name that it was loaded with.
    pub name: String,
    /// The number of the link that holds it, where one does.
    pub link: Option<u32>,
}
