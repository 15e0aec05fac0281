//! `wsltrace bench`: what each way to a server costs, measured in turns.

pub mod attempt;
pub mod doubts;
pub mod hlog;
mod http;
pub mod interval;
pub mod load;
mod patience;
pub mod result;
pub mod rounds;
pub mod serve;
mod slice;
pub mod spoilers;
pub mod tally;
pub mod target;
pub mod trace;
mod turns;
pub mod windows;

#[cfg(test)]
mod tests;
