//! The command line.

use std::{net::SocketAddr, str::FromStr, time::Duration};

/// What can be asked for.
pub(crate) const USAGE: &str = "usage:
  workload pause | idle          waits until it is asked to end
  workload serve --port PORT...  answers TCP and UDP with the pod's name
  workload connect ADDRESS:PORT [--udp] [--hold] [--rate PER_SECOND] [--for SECONDS]
                   [--timeout SECONDS] [--first-act] [--parallel CLIENTS] [--expect ok|failed]
                   [--until-eof]";

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Be the first process of a pod.
    Pause,
    /// Be a container that does nothing.
    Idle,
    /// Answer.
    Serve(ServeOptions),
    /// Ask.
    Connect(ConnectOptions),
}

/// Where to answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServeOptions {
    /// Ports of TCP and of UDP.
    pub(crate) ports: Vec<u16>,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A connection a try.
    Tcp,
    /// A datagram a try.
    Udp,
}

/// What becomes of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is answered.
    Ok,
    /// It is not.
    Failed,
}

/// Whom to ask, and how often.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnectOptions {
    /// The other side.
    pub(crate) target: SocketAddr,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// One connection (or socket) for all tries instead of a new one each.
    pub(crate) hold: bool,
    /// From the start of one try to the start of the next.
    pub(crate) interval: Duration,
    /// How long to go on; for ever if not given.
    pub(crate) duration: Option<Duration>,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// Whether the first try is told apart, as the process's first act.
    pub(crate) first_act: bool,
    /// How many clients do the same side by side.
    pub(crate) parallel: u32,
    /// What should become of every try: others alone are written then, and are failures.
    pub(crate) expect: Option<Outcome>,
    /// Ends when standard input does.
    pub(crate) until_eof: bool,
}

impl Action {
    /// Reads the words after the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        match words.next().as_deref() {
            Some("pause") => none_left(words).map(|()| Self::Pause),
            Some("idle") => none_left(words).map(|()| Self::Idle),
            Some("serve") => serve(words).map(Self::Serve),
            Some("connect") => connect(words).map(Self::Connect),
            Some(other) => Err(format!("there is no `{other}`")),
            None => Err("say what to do".to_owned()),
        }
    }
}

fn none_left(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    words.next().map_or(Ok(()), |word| Err(format!("`{word}` is not expected")))
}

fn serve(mut words: impl Iterator<Item = String>) -> Result<ServeOptions, String> {
    let mut ports = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--port" => ports.push(value(&mut words, &word)?),
            _ => return Err(format!("`{word}` is not expected")),
        }
    }
    if ports.is_empty() {
        Err("serve needs a --port".to_owned())
    } else {
        Ok(ServeOptions { ports })
    }
}

fn connect(mut words: impl Iterator<Item = String>) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions {
        target: value(&mut words, "connect")?,
        protocol: Protocol::Tcp,
        hold: false,
        interval: Duration::from_secs(1),
        duration: None,
        timeout: Duration::from_secs(1),
        first_act: false,
        parallel: 1,
        expect: None,
        until_eof: false,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--udp" => options.protocol = Protocol::Udp,
            "--hold" => options.hold = true,
            "--until-eof" => options.until_eof = true,
            "--first-act" => options.first_act = true,
            "--rate" => options.interval = per_second(value(&mut words, &word)?)?,
            "--for" => options.duration = Some(seconds(value(&mut words, &word)?)?),
            "--parallel" => options.parallel = value(&mut words, &word)?,
            "--expect" => options.expect = Some(outcome(&value::<String>(&mut words, &word)?)?),
            "--timeout" => options.timeout = seconds(value(&mut words, &word)?)?,
            _ => return Err(format!("`{word}` is not expected")),
        }
    }
    Ok(options)
}

fn outcome(word: &str) -> Result<Outcome, String> {
    match word {
        "ok" => Ok(Outcome::Ok),
        "failed" => Ok(Outcome::Failed),
        _ => Err(format!("`{word}` is nothing that becomes of a try")),
    }
}

fn per_second(rate: f64) -> Result<Duration, String> {
    seconds(1.0 / rate)
}

fn seconds(number: f64) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("{number} is no length of time")),
    }
}

fn value<T: FromStr>(words: &mut impl Iterator<Item = String>, of: &str) -> Result<T, String> {
    let word = words.next().ok_or_else(|| format!("{of} needs a value"))?;
    word.parse().map_err(|_error| format!("`{word}` is no value of {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Action, String> {
        Action::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        assert_eq!(parse("pause"), Ok(Action::Pause));
        assert_eq!(
            parse("serve --port 80 --port 53"),
            Ok(Action::Serve(ServeOptions { ports: vec![80, 53] }))
        );
        let Ok(Action::Connect(options)) = parse(
            "connect [fd00::1]:80 --udp --rate 20 --for 2.5 --first-act --parallel 7 --expect failed",
        ) else {
            panic!("no connect");
        };
        assert_eq!(options.interval, Duration::from_millis(50));
        assert_eq!(options.duration, Some(Duration::from_millis(2500)));
        assert_eq!((options.parallel, options.expect), (7, Some(Outcome::Failed)));
        assert!(options.first_act && !options.hold && options.protocol == Protocol::Udp);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "",
            "fly",
            "pause now",
            "serve",
            "serve --port",
            "serve --port 70000",
            "connect",
            "connect name:80",
            "connect 1.2.3.4:80 --rate 0",
            "connect 1.2.3.4:80 --for -1",
            "connect 1.2.3.4:80 --expect maybe",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
