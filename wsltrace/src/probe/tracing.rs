//! The programs on the kernel's trace events, and on the function that every `accept` calls. aya could load them, but only after it
//! has read all of the kernel's type information, which takes longer than the loading.

use std::os::fd::OwnedFd;

use super::sys::{self, LoadError, ProgramType};
use super::table::{ACCEPT, ACCEPT_COSTS, SOCKETLESS_RESET_COSTS, TRACEPOINTS, Tracepoint};
use super::{Missing, ProbeError};
use crate::kernel::{Event, KernelFacts};

/// A program to load, and what is lost without it; `None`: nothing works without it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) kind: ProgramType,
    costs: Option<&'static str>,
}

/// The programs that are on.
#[derive(Default)]
pub(super) struct Tracing {
    /// Each with its link, which it goes with.
    on: Vec<(&'static str, OwnedFd, OwnedFd)>,
}

/// The programs that this kernel has a place for. What has none is added to `missing`.
pub(super) fn wanted(facts: &KernelFacts, missing: &mut Vec<Missing>) -> Result<Vec<Wanted>, ProbeError> {
    let mut wanted = Vec::new();
    for tracepoint in TRACEPOINTS {
        wanted.extend(wanted_at(tracepoint, facts, missing)?);
    }
    match facts.accept {
        Some(id) => wanted.push(Wanted { name: ACCEPT, kind: ProgramType::FunctionEntry { id }, costs: Some(ACCEPT_COSTS) }),
        None => missing.push(Missing::new(ACCEPT, "this kernel does not describe the function", Some(ACCEPT_COSTS))),
    }
    Ok(wanted)
}

/// The program of a tracepoint; `None` where the kernel has no such event, which is then missing.
pub(super) fn wanted_at(
    tracepoint: Tracepoint,
    facts: &KernelFacts,
    missing: &mut Vec<Missing>,
) -> Result<Option<Wanted>, ProbeError> {
    let Tracepoint { name, costs } = tracepoint;
    let event = facts.events.named(name);
    if name == "tcp_send_reset" && event.is_some_and(|event| event.arguments < 3) {
        missing.push(Missing::new(
            "tcp_send_reset without a socket",
            "before Linux 6.10 it does not tell of packets without a socket",
            Some(SOCKETLESS_RESET_COSTS),
        ));
    }
    match event.filter(|event| name != "tcp_send_reset" || event.skb == Some(1)) {
        Some(Event { id, .. }) => return Ok(Some(Wanted { name, kind: ProgramType::TracePoint { id }, costs })),
        None if costs.is_none() => return Err(ProbeError::Event(name)),
        None => missing.push(Missing::new(name, "this kernel has no such event with the arguments that are known", costs)),
    }
    Ok(None)
}

impl Tracing {
    /// Puts a loaded program on its event. A refusal of one that is optional is added to `missing`. Whether it is on.
    pub(super) fn attach(
        &mut self,
        wanted: Wanted,
        loaded: Result<OwnedFd, LoadError>,
        missing: &mut Vec<Missing>,
    ) -> Result<bool, ProbeError> {
        let name = wanted.name;
        let refused = match loaded {
            Ok(program) => match sys::open_tracing(&program) {
                Ok(link) => {
                    self.on.push((name, program, link));
                    return Ok(true);
                }
                Err(source) if wanted.costs.is_none() => return Err(ProbeError::Trace { probe: name, source }),
                Err(source) => source.to_string(),
            },
            Err(error) if wanted.costs.is_none() => return Err(super::ObjectError::from(error).into()),
            // What the verifier says is for the log. A kernel that refuses the whole kind of program does not ask it.
            Err(error) => {
                log::debug!("{error}");
                error.reason().to_string()
            }
        };
        let refused = match wanted.kind {
            ProgramType::FunctionEntry { .. } => format!("this kernel refuses programs on its functions (fentry): {refused}"),
            _ => refused,
        };
        missing.push(Missing::new(name, &refused, wanted.costs));
        Ok(false)
    }

    /// How many events the programs were not told of.
    pub(super) fn missed(&self) -> std::io::Result<u64> {
        self.on.iter().map(|(_, program, _)| sys::recursion_misses(program)).sum()
    }
}
