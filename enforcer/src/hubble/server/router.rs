//! Which service a call is for.

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc};

use enforcer_hubble::{
    FILE_DESCRIPTOR_SET,
    observer::observer_server::{ObserverServer, SERVICE_NAME as OBSERVER},
    peer::peer_server::{PeerServer, SERVICE_NAME as PEER},
};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};
use tonic::{Status, body::Body, codegen::Service, server::NamedService};
use tonic_health::ServingStatus;

use super::{Shared, observer::ObserverService, peer::PeerService};
use crate::hubble::origin::VERSION;

/// The header that says our version.
const VERSION_HEADER: HeaderName = HeaderName::from_static("hubble-server-version");
/// The name by which the Hubble CLI and relay ask for our health.
const HEALTH_NAME: &str = "hubble.server.Observer";
/// Longest request, bytes.
const LONGEST_REQUEST: usize = 1 << 20;

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// All services by their names. Clones are cheap.
#[derive(Clone)]
pub(super) struct Router {
    handlers: Arc<[(&'static str, Handler)]>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.handlers.iter().map(|(name, _)| name)).finish()
    }
}

impl Router {
    pub(super) async fn new(shared: &Shared) -> Self {
        let shared = Arc::new(shared.clone());
        let observer = ObserverService { shared: Arc::clone(&shared) };
        let observer = ObserverServer::new(observer).max_decoding_message_size(LONGEST_REQUEST);
        let peer = PeerServer::new(PeerService { shared });
        let peer = peer.max_decoding_message_size(LONGEST_REQUEST);
        let (reporter, health) = tonic_health::server::health_reporter();
        for name in ["", HEALTH_NAME, OBSERVER, PEER] {
            reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let well_formed = "the compiler wrote the descriptors";
        let v1 = reflection().build_v1().expect(well_formed);
        let v1_alpha = reflection().build_v1alpha().expect(well_formed);
        let handlers =
            [handler(observer), handler(peer), handler(health), handler(v1), handler(v1_alpha)];
        Self { handlers: handlers.into() }
    }

    /// Answers one call.
    pub(super) async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        // `/package.Service/Method`
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        let found = self.handlers.iter().find(|(name, _)| *name == service);
        let mut response = match found {
            Some((_, handler)) => handler(request).await,
            None => Status::unimplemented("there is no such service here").into_http(),
        };
        response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
        response
    }
}

fn handler<S>(service: S) -> (&'static str, Handler)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let handler: Handler = Arc::new(move |request| {
        // Generated services are always ready.
        let answer = service.clone().call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    });
    (S::NAME, handler)
}
