//! The self-check's thread: the owning task tells it what changes and what is in force, the thread
//! that reads flows gives it samples.

use std::{
    fmt, io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{error, info};

use crate::{
    check::{Checked, Checker, Sample},
    cluster::event::Event,
    flow::{event::Flow, reading::Onlooker},
    metrics::SelfChecks,
};

/// How often samples are looked at that wait.
const LOOK: Duration = Duration::from_millis(50);
const SECOND: u64 = 1_000_000_000;

/// What the thread is told.
enum Word {
    /// This changes, and is not in force yet.
    Changes(Box<Event>),
    /// Policy is written: all of what was told before is in force, or not all of it.
    Written { at: u64, whole: bool },
    /// The kernel has judged this.
    Sample(Box<Sample>),
}

/// The owning task's end. The thread ends with it and with the other end.
#[derive(Debug)]
pub(super) struct SelfCheck {
    words: Sender<Word>,
    counts: SelfChecks,
    clock: fn() -> u64,
    _thread: JoinHandle<()>,
}

/// The end of the thread that reads flows: it takes so many a second.
pub(super) struct Sampling {
    words: Sender<Word>,
    a_second: u32,
    /// When this second began, and what was taken since.
    second: u64,
    taken: u32,
}

impl fmt::Debug for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampling").field("a_second", &self.a_second).finish_non_exhaustive()
    }
}

/// Starts checking up to `a_second` verdicts a second. `clock` is the clock of events.
///
/// # Errors
/// If the system has no thread to give.
pub(super) fn start(
    a_second: u32,
    counts: SelfChecks,
    clock: fn() -> u64,
) -> io::Result<(SelfCheck, Sampling)> {
    let (words, told) = mpsc::channel();
    let counting = counts.clone();
    let thread = thread::Builder::new()
        .name("self-check".to_owned())
        .spawn(move || check(&told, &counting, clock))?;
    info!(a_second, "verdicts of the kernel are held against the objects");
    let sampling = Sampling { words: words.clone(), a_second, second: 0, taken: 0 };
    Ok((SelfCheck { words, counts, clock, _thread: thread }, sampling))
}

impl SelfCheck {
    /// Tells what changes; before it can come into force.
    pub(super) fn changes(&self, event: &Event) {
        self.tell(Word::Changes(Box::new(event.clone())));
    }

    /// Tells that all of that is in force, or that something could not be written.
    pub(super) fn is_written(&self, whole: bool) {
        self.tell(Word::Written { at: (self.clock)(), whole });
    }

    /// How many verdicts were not what policy says.
    pub(super) fn differences(&self) -> u64 {
        self.counts.differing()
    }

    fn tell(&self, word: Word) {
        // A thread that ended has said so; policy is more than its check.
        let _ended = self.words.send(word).is_err();
    }
}

impl Onlooker for Sampling {
    fn look(&mut self, flow: &Flow) {
        if flow.raw.time.saturating_sub(self.second) >= SECOND {
            (self.second, self.taken) = (flow.raw.time, 0);
        }
        if self.taken >= self.a_second {
            return;
        }
        if let Some(sample) = Sample::of(flow) {
            self.taken += 1;
            let _ended = self.words.send(Word::Sample(Box::new(sample))).is_err();
        }
    }
}

fn check(told: &Receiver<Word>, counts: &SelfChecks, clock: fn() -> u64) {
    let mut checker = Checker::default();
    let mut said = false;
    loop {
        let first = match told.recv_timeout(LOOK) {
            Ok(word) => Some(word),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Before anything is judged, all that was told by now.
        let now = clock();
        for word in first.into_iter().chain(told.try_iter()) {
            match word {
                Word::Changes(event) => checker.changes(&event),
                Word::Written { at, whole } => checker.settles(at, whole),
                Word::Sample(sample) => {
                    if checker.take(*sample).is_some() {
                        counts.passed_over();
                    }
                }
            }
        }
        while let Some(checked) = checker.check(now) {
            count(&checked, counts, &mut said);
        }
    }
}

fn count(checked: &Checked, counts: &SelfChecks, said: &mut bool) {
    match checked {
        Checked::Agrees => counts.agrees(),
        Checked::PassedOver => counts.passed_over(),
        Checked::Differs(difference) => {
            counts.differs();
            // Once: what is wrong goes on, and the first case is what a report needs.
            if !std::mem::replace(said, true) {
                error!(
                    %difference,
                    "the kernel's verdict is not what policy says; please report this with the \
                     manifests of the pods and policies it names"
                );
            }
        }
    }
}
