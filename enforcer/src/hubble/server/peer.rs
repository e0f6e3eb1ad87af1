//! `peer.Peer`: the nodes, and every change of them, until the client goes.

use std::sync::Arc;

use enforcer_hubble::peer::{ChangeNotification, NotifyRequest, peer_server::Peer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Shared;
use crate::hubble::peers;

/// Changes that wait for a client that does not read. What it does not read in time is told
/// together, later.
const AHEAD: usize = 16;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct PeerService {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Peer for PeerService {
    type NotifyStream = ReceiverStream<Result<ChangeNotification, Status>>;

    async fn notify(
        &self,
        _request: Request<NotifyRequest>,
    ) -> Result<Response<Self::NotifyStream>, Status> {
        let (answer, lines) = mpsc::channel(AHEAD);
        tokio::spawn(notify(Arc::clone(&self.shared), answer));
        Ok(Response::new(ReceiverStream::new(lines)))
    }
}

async fn notify(shared: Arc<Shared>, answer: mpsc::Sender<Result<ChangeNotification, Status>>) {
    let mut nodes = shared.observed.nodes.clone();
    let mut told = Vec::new();
    loop {
        let known = nodes.borrow_and_update().clone();
        let now = peers::peers(&known, &shared.observed.origin, &shared.reach);
        for change in peers::changes(&told, &now) {
            if answer.send(Ok(change)).await.is_err() {
                return;
            }
        }
        told = now;
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() {
                // Nobody tells of changes any more; what was told stays true for the client.
                answer.closed().await;
                return;
            },
            () = answer.closed() => return,
        }
    }
}
