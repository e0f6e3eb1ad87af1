//! The one binary: the agent, and the commands that talk to it.

fn main() {}
