//! One watch: lists, follows the changes, and starts again wherever that breaks off. It ends only
//! with its receiver.
//!
//! What is sent on is in the order in which the server told it. A list is sent only when it is
//! whole, so that what was known before stays in force until then.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    framing::Lines,
    list::Now,
    resource::{Item, Reader, Watch, version},
    timing::{Chance, Timing},
};
use crate::{
    apiserver::{Answer, ApiError, ApiServer},
    cluster::event::ObjectKey,
    source::problem::Problem,
};

/// What a watch tells.
#[derive(Debug)]
pub(super) enum News {
    /// All that there is, as of a version.
    Listed { items: Vec<Item>, nameless: Vec<Problem>, version: u64 },
    /// An object is new or changed.
    Applied(Box<Item>),
    /// An object is gone, or no longer what is watched.
    Deleted(Box<Item>),
    /// An object that cannot be told from others.
    Nameless(Box<Problem>),
    /// Everything up to a version has been told.
    Seen { version: u64 },
    /// The watch is as far as the server was when this was asked for.
    CaughtUp { request: u64 },
    /// It does not work, and is tried again.
    Failed { error: ApiError, verb: &'static str },
}

/// News, of which watch, and when.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) watch: usize,
    pub(super) at: SystemTime,
    pub(super) news: News,
}

/// Why a turn ended that is not to be continued.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something failed.
    Error { error: ApiError, verb: &'static str },
    /// Nobody listens any more.
    Ended,
}

/// How a stream of changes came to its end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// As it must, from time to time.
    Ordinary,
    /// The server closed it at once.
    AtOnce,
    /// To catch up.
    CatchUp,
}

/// Where a stream begins.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// With all that there is (`sendInitialEvents`, Kubernetes 1.27 and later).
    Everything,
    /// After the position.
    Position,
}

/// Whether the server sends lists as streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streaming {
    Try,
    /// Not this time: it broke off.
    NotNow,
    Never,
}

/// How a list is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Whatever is at hand, but not older than what is known.
    NotOlder,
    /// As of now.
    Current,
}

/// What a watch must reach.
#[derive(Debug)]
struct Goal {
    request: u64,
    version: u64,
    since: Instant,
}

/// A watch at work.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) api: ApiServer,
    pub(super) watch: Watch,
    pub(super) timing: Timing,
    pub(super) reader: Reader,
    chance: Chance,
    number: usize,
    out: mpsc::Sender<Message>,
    /// The last request to catch up.
    asked: watch::Receiver<u64>,
    answered: u64,
    goal: Option<Goal>,
    /// Version up to which everything was sent on, as the server writes it.
    pub(super) position: Option<String>,
    list: Option<Freshness>,
    streaming: Streaming,
    /// About how many objects there are.
    objects: usize,
    failures: u32,
    /// Since when no watch has begun.
    failing: Option<Instant>,
    /// Lists in a row for which the server's cache was not as far as its store.
    pub(super) behind: u32,
}

/// A line of a watch.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BookmarkMeta {
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(default, rename = "continue")]
    pub(super) next: String,
    /// How many objects a chunk leaves out, where the server says so.
    #[serde(default)]
    pub(super) remaining_item_count: Option<u64>,
}

/// The annotation that ends a list that came as a stream.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Deserialize)]
#[serde(default)]
struct Refusal {
    code: u16,
    message: String,
}

impl Default for Refusal {
    fn default() -> Self {
        Self { code: 500, message: "no reason given".to_owned() }
    }
}

impl Watcher {
    pub(super) fn new(
        api: ApiServer,
        (number, watch): (usize, Watch),
        timing: Timing,
        chance: Chance,
        out: mpsc::Sender<Message>,
        asked: watch::Receiver<u64>,
    ) -> Self {
        Self {
            api,
            reader: Reader::new(watch.kind),
            watch,
            timing,
            chance,
            number,
            out,
            asked,
            answered: 0,
            goal: None,
            position: None,
            // A former agent may have seen what a server's cache has not.
            list: Some(Freshness::Current),
            streaming: Streaming::Try,
            objects: 0,
            failures: 0,
            failing: None,
            behind: 0,
        }
    }

    /// Watches until nobody listens.
    pub(super) async fn run(mut self) {
        sleep(self.chance.part(self.timing.start, 0)).await;
        loop {
            let (error, verb) = match self.turn().await {
                Ok(End::AtOnce) => {
                    // Not worth a word, but not to be repeated at once either.
                    self.pause().await;
                    continue;
                }
                Ok(End::Ordinary | End::CatchUp) => continue,
                Err(Stop::Ended) => return,
                Err(Stop::Error { error, verb }) => (error, verb),
            };
            if matches!(error, ApiError::Gone(_)) && self.list.is_none() {
                tracing::debug!(watch = self.watch.name, "changes were missed: listing anew");
                self.list = Some(match self.position {
                    Some(_) => Freshness::NotOlder,
                    None => Freshness::Current,
                });
                if self.failures > 0 {
                    self.pause().await;
                }
                self.failures = 1;
                continue;
            }
            let silent = matches!(error, ApiError::Silent { .. });
            self.failing.get_or_insert_with(Instant::now);
            if self.list.is_some() || silent {
                // What it was to be not older than may be ahead of this server, even for good.
                self.list = Some(Freshness::Current);
            }
            if self.tell(News::Failed { error, verb }).await.is_err() {
                return;
            }
            self.pause().await;
        }
    }

    /// Waits for longer after each failure in a row, unless somebody wants to know.
    async fn pause(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let wait = self.timing.wait_after(self.failures, &mut self.chance);
        tokio::select! {
            () = sleep(wait) => {}
            // The sender's end is noticed when something is told.
            changed = self.asked.changed() => if changed.is_err() { sleep(wait).await },
        }
    }

    async fn turn(&mut self) -> Result<End, Stop> {
        // Meanwhile the server may have been set back to a backup, and have come as far again on
        // another way: its versions would not tell.
        if self.failing.is_some_and(|since| since.elapsed() >= self.timing.outage) {
            self.list = Some(Freshness::Current);
        }
        self.catch_up().await?;
        if let Some(freshness) = self.list {
            if self.streaming == Streaming::Try {
                return self.stream(Begin::Everything, freshness).await;
            }
            self.streaming = match self.streaming {
                Streaming::NotNow => Streaming::Try,
                other => other,
            };
            let request = *self.asked.borrow();
            let (items, nameless, position) = self.read_list(freshness).await?;
            let request = (freshness == Freshness::Current).then_some(request);
            self.listed(items, nameless, position, request).await?;
        }
        self.stream(Begin::Position, Freshness::NotOlder).await
    }

    /// Does what is needed to be as far as the server was at the last request.
    async fn catch_up(&mut self) -> Result<(), Stop> {
        let request = *self.asked.borrow_and_update();
        if request <= self.answered {
            return Ok(());
        }
        if self.list.is_some() || self.position.is_none() || self.objects <= self.timing.few {
            self.goal = None;
            self.list = Some(Freshness::Current);
            return Ok(());
        }
        // Whoever asks again while the watch is on its way must not have it begin anew: where the
        // server tells nothing of a kind of which nothing changes, it would never end.
        let goal = self.goal.as_ref().map(|goal| (goal.request, goal.since));
        let (asked, since) = goal.unwrap_or((0, Instant::now()));
        if since.elapsed() > self.timing.catch_up {
            self.goal = None;
            self.list = Some(Freshness::Current);
            return Ok(());
        }
        if asked == request {
            return Ok(());
        }
        let Now { version, .. } = self.now().await?;
        self.goal = Some(Goal { request, version, since });
        self.check_goal().await
    }

    /// Says so if the goal is reached.
    async fn check_goal(&mut self) -> Result<(), Stop> {
        let Some(Goal { request, version: wanted, .. }) = &self.goal else { return Ok(()) };
        let reached = self.position.as_deref().map_or(0, version);
        if reached < *wanted {
            return Ok(());
        }
        let request = *request;
        self.goal = None;
        self.answered = request;
        self.tell(News::CaughtUp { request }).await
    }

    /// Sends on a whole list.
    async fn listed(
        &mut self,
        items: Vec<Item>,
        nameless: Vec<Problem>,
        position: String,
        request: Option<u64>,
    ) -> Result<(), Stop> {
        self.objects = items.len();
        self.list = None;
        self.failures = 0;
        self.failing = None;
        self.behind = 0;
        self.reader.tidy();
        let number = version(&position);
        self.position = Some(position);
        self.tell(News::Listed { items, nameless, version: number }).await?;
        if let Some(request) = request
            && request > self.answered
        {
            self.answered = request;
            self.goal = None;
            self.tell(News::CaughtUp { request }).await?;
        }
        Ok(())
    }

    /// Follows the changes.
    async fn stream(&mut self, begin: Begin, freshness: Freshness) -> Result<End, Stop> {
        let request = *self.asked.borrow();
        let lifetime = if self.goal.is_some() {
            self.timing.hurry
        } else {
            self.chance.part(self.timing.watch, 192)
        };
        // The server counts in whole seconds.
        let seconds = lifetime.as_secs().max(1);
        let mut query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}");
        let known = self.position.clone();
        match (&begin, freshness) {
            (Begin::Everything, _) => {
                query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
                if freshness == Freshness::NotOlder {
                    query.push_str("&resourceVersion=");
                    query.push_str(known.as_deref().unwrap_or("0"));
                }
            }
            (Begin::Position, _) => {
                query.push_str("&resourceVersion=");
                query.push_str(known.as_deref().unwrap_or("0"));
            }
        }
        let began = Instant::now();
        let deadline = began + Duration::from_secs(seconds) + self.timing.slack;
        let answer = self.api.get(&self.watch.with(&query), self.timing.answer).await;
        let answer = match answer {
            Err(error) if begin == Begin::Everything => return self.no_stream(error),
            answer => answer.map_err(|error| Stop::Error { error, verb: "watch" })?,
        };
        if begin == Begin::Position {
            self.failing = None;
            self.tell(News::Seen { version: known.as_deref().map_or(0, version) }).await?;
        }
        let mut initial = (begin == Begin::Everything).then(Initial::default);
        let current = (freshness == Freshness::Current).then_some(request);
        let end = self.follow(answer, deadline, &mut initial, current).await;
        if initial.is_some() {
            return match end {
                Ok(_) => {
                    self.streaming = Streaming::NotNow;
                    Ok(End::AtOnce)
                }
                Err(Stop::Error { error, .. }) => self.no_stream(error),
                Err(Stop::Ended) => Err(Stop::Ended),
            };
        }
        match end? {
            End::Ordinary if began.elapsed() < Duration::from_secs(1) => Ok(End::AtOnce),
            end => Ok(end),
        }
    }

    /// No list came as a stream: it is asked for as one answer. Servers that do not know the
    /// request refuse it, and those whose etcd is older than 3.5 say 500, some of them only in the
    /// stream.
    fn no_stream(&mut self, error: ApiError) -> Result<End, Stop> {
        if matches!(error, ApiError::Refused { .. } | ApiError::Unavailable { code: 500, .. }) {
            tracing::debug!(watch = self.watch.name, %error, "no lists as streams");
            self.streaming = Streaming::Never;
            return Ok(End::CatchUp);
        }
        // The others have nothing to do with streams.
        if matches!(
            error,
            ApiError::Silent { .. }
                | ApiError::Broken { .. }
                | ApiError::NotUnderstood { .. }
                | ApiError::Unavailable { .. }
        ) {
            self.streaming = Streaming::NotNow;
        }
        Err(Stop::Error { error, verb: "watch" })
    }

    async fn follow(
        &mut self,
        mut answer: Answer,
        deadline: Instant,
        initial: &mut Option<Initial>,
        request: Option<u64>,
    ) -> Result<End, Stop> {
        let failed = |error| Stop::Error { error, verb: "watch" };
        let mut lines = Lines::default();
        loop {
            let within = deadline.saturating_duration_since(Instant::now());
            let piece = tokio::select! {
                piece = answer.piece(within) => piece.map_err(failed)?,
                changed = self.asked.changed(), if initial.is_none() => {
                    return changed.map(|()| End::CatchUp).map_err(|_ended| Stop::Ended);
                }
                () = self.out.closed() => return Err(Stop::Ended),
            };
            let Some(piece) = piece else { return Ok(End::Ordinary) };
            lines.push(&piece);
            loop {
                let line = lines.next().map_err(|e| failed(self.api.not_understood(e)))?;
                let Some(line) = line else { break };
                let line: Line<'_> =
                    serde_json::from_slice(line).map_err(|e| failed(self.api.not_understood(e)))?;
                self.take(&line, initial, request).await?;
            }
            self.check_goal().await?;
        }
    }

    async fn take(
        &mut self,
        line: &Line<'_>,
        initial: &mut Option<Initial>,
        request: Option<u64>,
    ) -> Result<(), Stop> {
        let failed = |error| Stop::Error { error, verb: "watch" };
        let text = line.object.get().as_bytes();
        match line.kind {
            "BOOKMARK" => {
                let Bookmark { metadata } =
                    serde_json::from_slice(text).map_err(|e| failed(self.api.not_understood(e)))?;
                self.failures = 0;
                let at = metadata.resource_version;
                if metadata.annotations.contains_key(INITIAL_EVENTS_END)
                    && let Some(Initial { items, nameless }) = initial.take()
                {
                    let items = items.into_values().collect();
                    return self.listed(items, nameless, at, request).await;
                }
                if initial.is_none() && !at.is_empty() {
                    let number = version(&at);
                    self.advance(at)?;
                    self.tell(News::Seen { version: number }).await?;
                }
                Ok(())
            }
            "ERROR" => {
                let Refusal { code, message } = serde_json::from_slice(text).unwrap_or_default();
                Err(failed(ApiError::status(code, message)))
            }
            kind @ ("ADDED" | "MODIFIED" | "DELETED") => {
                let item = match self.reader.read(text) {
                    Ok(item) => item,
                    Err(problem) => match initial {
                        Some(initial) => {
                            initial.nameless.push(*problem);
                            return Ok(());
                        }
                        None => return self.tell(News::Nameless(problem)).await,
                    },
                };
                if let Some(initial) = initial {
                    // What the server's cache held comes first, then what has happened since.
                    if kind == "DELETED" {
                        initial.items.remove(&item.key);
                    } else {
                        initial.items.insert(item.key.clone(), item);
                    }
                    return Ok(());
                }
                self.failures = 0;
                if !item.version_text.is_empty() {
                    self.advance(item.version_text.clone())?;
                }
                match kind {
                    "ADDED" => self.objects += 1,
                    "DELETED" => self.objects = self.objects.saturating_sub(1),
                    _ => {}
                }
                let item = Box::new(item);
                let news =
                    if kind == "DELETED" { News::Deleted(item) } else { News::Applied(item) };
                self.tell(news).await
            }
            // Kinds that came later mean nothing here.
            _ => Ok(()),
        }
    }

    /// Everything up to this version has been told.
    fn advance(&mut self, to: String) -> Result<(), Stop> {
        let number = version(&to);
        if number < self.position.as_deref().map_or(0, version) {
            // The server was set back, by a backup perhaps: it will not tell what happens until it
            // has come that far again.
            self.position = None;
            let reason = format!("it is at version {number}, which is before that");
            return Err(Stop::Error { error: ApiError::Gone(reason), verb: "watch" });
        }
        self.position = Some(to);
        Ok(())
    }

    async fn tell(&mut self, news: News) -> Result<(), Stop> {
        let message = Message { watch: self.number, at: SystemTime::now(), news };
        self.out.send(message).await.map_err(|_ended| Stop::Ended)
    }
}

/// What has come of a list that comes as a stream.
#[derive(Debug, Default)]
struct Initial {
    items: HashMap<ObjectKey, Item>,
    nameless: Vec<Problem>,
}
