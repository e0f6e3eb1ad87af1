//! Conntrack transitions and timeouts, as pure functions.
