//! A list as one answer, or in chunks where the server makes some: for servers that do not stream
//! lists, and for when a stream has broken off. Read item by item: the whole of it, with all the
//! fields that nobody reads here, can be many times the size of what is kept.

use serde::Deserialize;

use super::{
    framing::Items,
    resource::{Item, version},
    watch::{BookmarkMeta, Freshness, Stop, Watcher},
};
use crate::{apiserver::ApiError, source::problem::Problem};

/// Objects in a chunk.
const CHUNK: usize = 500;
/// So many times a server's cache may be behind its store before the store is listed.
const BEHIND: u32 = 1;
/// An answer with one object, at most.
const MOST_OF_ONE: usize = 16 << 20;

/// What the server's store says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Everything written before has a smaller version, or this.
    pub(super) version: u64,
    /// How many objects of the kind there are at most, where the server says so.
    objects: Option<usize>,
}

#[derive(Deserialize)]
struct List {
    metadata: BookmarkMeta,
}

impl Watcher {
    /// All objects, those without a name, and the version of the list.
    pub(super) async fn read_list(
        &mut self,
        freshness: Freshness,
    ) -> Result<(Vec<Item>, Vec<Problem>, String), Stop> {
        let (mut items, mut nameless) = (Vec::new(), Vec::new());
        let many = freshness == Freshness::Current && self.watch.kind.is_many();
        let now = if many && self.behind < BEHIND { Some(self.now().await?) } else { None };
        // Servers before 1.31 read all objects of the cluster from their store for a list as of now,
        // selected or not: hundreds of megabytes for each agent where there are many. So the store
        // is only asked how far it is, and the list comes from the cache when that is as far. (Where
        // there are few, nothing may have changed for long, and then the cache does not get there.)
        let from_cache = now.filter(|now| now.objects.is_none_or(|n| n > self.timing.few));
        let mut query = match freshness {
            // A limit would send it to the store all the same.
            Freshness::Current if let Some(Now { version, .. }) = from_cache => {
                format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan")
            }
            Freshness::Current => format!("limit={CHUNK}"),
            Freshness::NotOlder => {
                let known = self.position.as_deref().unwrap_or("0");
                format!("limit={CHUNK}&resourceVersion={known}&resourceVersionMatch=NotOlderThan")
            }
        };
        loop {
            let chunk = self.chunk(&query, &mut items, &mut nameless).await;
            let is_behind =
                |stop: &Stop| matches!(stop, Stop::Error { error, .. } if error.is_timeout());
            if from_cache.is_some() && chunk.as_ref().is_err_and(is_behind) {
                self.behind += 1;
            }
            let meta = chunk?;
            if meta.next.is_empty() {
                return Ok((items, nameless, meta.resource_version));
            }
            query = format!("limit={CHUNK}&continue={}", meta.next);
        }
    }

    async fn chunk(
        &mut self,
        query: &str,
        items: &mut Vec<Item>,
        nameless: &mut Vec<Problem>,
    ) -> Result<BookmarkMeta, Stop> {
        let failed = |error: ApiError| Stop::Error { error, verb: "list" };
        let path = self.watch.with(query);
        let mut answer = self.api.get(&path, self.timing.answer).await.map_err(failed)?;
        let mut framing = Items::new();
        while let Some(piece) = answer.piece(self.timing.piece).await.map_err(failed)? {
            framing.push(&piece);
            loop {
                let item = framing.next().map_err(|e| failed(self.api.not_understood(e)))?;
                let Some(item) = item else { break };
                match self.reader.read(item) {
                    Ok(item) => items.push(item),
                    Err(problem) => nameless.push(*problem),
                }
            }
        }
        let rest = framing.finish().map_err(|e| failed(self.api.not_understood(e)))?;
        let List { metadata } =
            serde_json::from_slice(&rest).map_err(|e| failed(self.api.not_understood(e)))?;
        Ok(metadata)
    }

    /// Asks the store how far it is.
    pub(super) async fn now(&mut self) -> Result<Now, Stop> {
        let failed = |error: ApiError| Stop::Error { error, verb: "list" };
        let path = self.watch.of_all("limit=1");
        let answer = self.api.get(&path, self.timing.answer).await.map_err(failed)?;
        let text = answer.whole(MOST_OF_ONE, self.timing.piece).await.map_err(failed)?;
        let List { metadata } =
            serde_json::from_slice(&text).map_err(|e| failed(self.api.not_understood(e)))?;
        let left = if metadata.next.is_empty() { Some(0) } else { metadata.remaining_item_count };
        Ok(Now {
            version: version(&metadata.resource_version),
            objects: left.and_then(|left| usize::try_from(left).ok()?.checked_add(1)),
        })
    }
}
