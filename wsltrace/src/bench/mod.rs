//! `wsltrace bench`: what each way to a server costs, measured in turns.

pub mod attempt;
pub mod load;
pub mod serve;
pub mod tally;
pub mod target;

#[cfg(test)]
mod tests;
