//! What is said while the cluster is made.

/// Where progress is told.
pub trait Progress {
    /// What is done now.
    fn step(&mut self, text: &str);
    /// A fact about the step before.
    fn detail(&mut self, text: &str);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&mut self, _text: &str) {}
    fn detail(&mut self, _text: &str) {}
}
