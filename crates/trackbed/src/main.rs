//! Picks a role or a command, nothing else.
fn main() {}
