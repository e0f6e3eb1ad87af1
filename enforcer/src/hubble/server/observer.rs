//! `observer.Observer`: understands requests and hands out streams.

use std::sync::Arc;

use enforcer_hubble::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
    GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse,
    GetNodesRequest, GetNodesResponse, ServerStatusRequest, ServerStatusResponse,
    observer_server::Observer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Shared, agent_events,
    flows::{self, Wish},
    range::Range,
    status,
};

/// Lines that wait for a client that does not read.
const AHEAD: usize = 64;

type Lines<T> = ReceiverStream<Result<T, Status>>;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ObserverService {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Observer for ObserverService {
    type GetFlowsStream = Lines<GetFlowsResponse>;
    type GetAgentEventsStream = Lines<GetAgentEventsResponse>;
    type GetDebugEventsStream = Lines<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let wish = Wish::of(request.get_ref(), &self.shared)?;
        let (answer, lines) = mpsc::channel(AHEAD);
        tokio::spawn(flows::answer(Arc::clone(&self.shared), wish, answer));
        Ok(Response::new(ReceiverStream::new(lines)))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let GetAgentEventsRequest { number, follow, since, until, first } = request.get_ref();
        let range = Range::of(*number, *first, *follow, since.as_ref(), until.as_ref())?;
        let (answer, lines) = mpsc::channel(AHEAD);
        tokio::spawn(agent_events::answer(Arc::clone(&self.shared), range, answer));
        Ok(Response::new(ReceiverStream::new(lines)))
    }

    async fn get_debug_events(
        &self,
        _request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("the programs of this agent tell no debug events"))
    }

    async fn get_nodes(
        &self,
        _request: Request<GetNodesRequest>,
    ) -> Result<Response<GetNodesResponse>, Status> {
        Ok(Response::new(status::nodes(&self.shared)))
    }

    async fn get_namespaces(
        &self,
        _request: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Ok(Response::new(status::namespaces(&self.shared).await))
    }

    async fn server_status(
        &self,
        _request: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(status::server_status(&self.shared).await))
    }
}
