//! Conntrack: who owns an entry.

mod node;
