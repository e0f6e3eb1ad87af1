//! The one program of the test images: a server that says who it is, a client that says what came
//! of its connections, and the first process of a pod.
//!
//! It is static and needs nothing of an image, not even names: addresses are numbers.

mod arguments;
mod connect;
mod say;
mod serve;

use std::{
    env, io,
    process::{ExitCode, exit},
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};

use arguments::Action;

fn main() -> ExitCode {
    let action = match Action::parse(env::args().skip(1)) {
        Ok(action) => action,
        Err(message) => {
            eprintln!("workload: {message}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    // Before any thread is started: they inherit that signals are kept for this one.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
    if let Err(error) = signals.thread_block() {
        eprintln!("workload: cannot wait for signals: {error}");
        return ExitCode::FAILURE;
    }
    let at_end: fn() = match action {
        Action::Pause | Action::Idle => || {},
        Action::Serve(options) => {
            if let Err(error) = serve::start(&options) {
                eprintln!("workload: {error}");
                return ExitCode::FAILURE;
            }
            || {}
        }
        Action::Connect(options) => {
            if options.until_eof {
                // An error is an end, too.
                thread::spawn(|| {
                    io::copy(&mut io::stdin(), &mut io::sink()).ok();
                    connect::summarise();
                    exit(0)
                });
            }
            thread::spawn(move || exit(connect::run(&options)));
            connect::summarise
        }
    };
    // The first process of a process namespace is asked to end by a signal that it must handle
    // itself, and is given the orphans.
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => {
                at_end();
                return ExitCode::SUCCESS;
            }
            Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("workload: cannot wait for signals: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != WaitStatus::StillAlive)
    {}
}
