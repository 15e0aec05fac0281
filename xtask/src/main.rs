//! Project tasks: `cargo xtask setup|build|test|demo|install`.

fn main() {}
