//! The `wsltrace` program: parse, run, print, exit.

fn main() {}
