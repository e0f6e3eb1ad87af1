//! The plugin's side of one connection, without I/O: bytes in, bytes out, and what is to be done.

use std::time::Duration;

use prost::{DecodeError, Message};

use super::{
    error::{GateError, WireError},
    mux::{self, Channel, Demux},
    proto::{
        ConfigureRequest, ConfigureResponse, Empty, FailurePolicy, PLUGIN_SERVICE, PodSandbox,
        RUN_POD_SANDBOX, RUNTIME_SERVICE, RegisterPluginRequest, RunPodSandboxRequest,
        StateChangeEvent, SynchronizeRequest, SynchronizeResponse, event_bit,
    },
    sandbox::{Network, Sandbox},
    ttrpc::{Assembler, Frame, Request, Response, Status, code, kind},
};

/// Stream of the only call that the plugin makes.
const REGISTRATION: u32 = 1;

/// What the runtime asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Ask {
    /// The plugin is in the runtime's list from here on.
    Joined {
        /// Name and version.
        runtime: String,
        /// The sandboxes that run.
        running: Vec<Sandbox>,
    },
    /// Hold this sandbox, and answer on `stream`.
    Hold {
        /// The call's stream.
        stream: u32,
        /// Who is held.
        sandbox: Sandbox,
        /// How long the runtime waits for the answer.
        timeout: Option<Duration>,
    },
    /// A sandbox was refused, because it was not understood; with the reason.
    Refused(String),
    /// The runtime goes down.
    Leave,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Protocol {
    name: String,
    demux: Demux,
    plugin: Assembler,
    runtime: Assembler,
    /// The newest stream that the runtime has opened.
    newest: u32,
    /// Name and version of the runtime.
    runtime_name: String,
    running: Vec<Sandbox>,
    output: Vec<u8>,
}

impl Protocol {
    /// The start of a connection: the registration is its first output.
    pub(super) fn new(name: &str, index: &str) -> Self {
        let mut protocol = Self {
            name: format!("{index}-{name}"),
            demux: Demux::default(),
            plugin: Assembler::default(),
            runtime: Assembler::default(),
            newest: 0,
            runtime_name: String::new(),
            running: Vec::new(),
            output: Vec::new(),
        };
        let register =
            RegisterPluginRequest { plugin_name: name.to_owned(), plugin_idx: index.to_owned() };
        let request = Request {
            service: RUNTIME_SERVICE.to_owned(),
            method: "RegisterPlugin".to_owned(),
            payload: register.encode_to_vec(),
            timeout_nano: 0,
        };
        protocol.send(Channel::Runtime, &Frame::request(REGISTRATION, &request));
        protocol
    }

    /// What is to be written, taken.
    pub(super) fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Answers a call.
    pub(super) fn answer(&mut self, stream: u32, response: &Response) {
        self.send(Channel::Plugin, &Frame::response(stream, response));
    }

    /// Takes what came.
    ///
    /// # Errors
    /// If the runtime refuses the plugin or does not speak NRI; the connection is to be closed.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Ask>, GateError> {
        let Self { demux, plugin, runtime, .. } = self;
        demux.feed(bytes, |channel, payload| match channel {
            Channel::Plugin => plugin.push(payload),
            Channel::Runtime => runtime.push(payload),
        })?;
        while let Some(frame) = self.runtime.next()? {
            self.answered(&frame)?;
        }
        let mut asks = Vec::new();
        while let Some(frame) = self.plugin.next()? {
            asks.extend(self.called(&frame)?);
        }
        Ok(asks)
    }

    fn send(&mut self, channel: Channel, frame: &Frame) {
        mux::write(channel, &frame.to_bytes(), &mut self.output);
    }

    /// The runtime answers the registration. Its configuration may come before that.
    fn answered(&mut self, frame: &Frame) -> Result<(), GateError> {
        if frame.kind != kind::RESPONSE || frame.stream != REGISTRATION {
            return Ok(());
        }
        let response = Response::decode(&*frame.payload).map_err(|_no| WireError::Message)?;
        match response.status {
            Some(status) if status.code != 0 => {
                Err(GateError::Refused { name: self.name.clone(), reason: status.message })
            }
            _ => Ok(()),
        }
    }

    /// The runtime calls.
    fn called(&mut self, frame: &Frame) -> Result<Option<Ask>, WireError> {
        let stream = frame.stream;
        match frame.kind {
            kind::REQUEST => {}
            kind::DATA => return Err(WireError::Data(stream)),
            // The protocol asks to pass over what it may add.
            _ => return Ok(None),
        }
        if stream.is_multiple_of(2) || stream <= self.newest {
            return Err(WireError::Stream(stream));
        }
        self.newest = stream;
        let request = Request::decode(&*frame.payload).map_err(|_no| WireError::Message)?;
        let asked = if request.service == PLUGIN_SERVICE {
            self.call(stream, &request)
        } else {
            Err(unknown(&request))
        };
        Ok(asked.unwrap_or_else(|status| {
            self.answer(stream, &status.into());
            None
        }))
    }

    /// A call of the plugin's service. `Ok(None)` is answered already.
    fn call(&mut self, stream: u32, request: &Request) -> Result<Option<Ask>, Status> {
        let payload = &*request.payload;
        match request.method.as_str() {
            "Configure" => {
                let message = read::<ConfigureRequest>(payload)?;
                self.runtime_name = format!("{} {}", message.runtime_name, message.runtime_version);
                let response = ConfigureResponse {
                    events: event_bit(RUN_POD_SANDBOX),
                    failure_policy: Some(FailurePolicy {
                        fail_request: true,
                        keep_connected: true,
                    }),
                };
                self.answer(stream, &Response::of(&response));
                Ok(None)
            }
            "Synchronize" => {
                let SynchronizeRequest { pods, more } = read(payload)?;
                // They run already, whatever is said of them.
                self.running.extend(pods.into_iter().filter_map(|pod| pod.try_into().ok()));
                self.answer(stream, &Response::of(&SynchronizeResponse { more }));
                let joined = || Ask::Joined {
                    runtime: self.runtime_name.clone(),
                    running: std::mem::take(&mut self.running),
                };
                Ok((!more).then(joined))
            }
            "RunPodSandbox" => {
                let RunPodSandboxRequest { pod } = read(payload)?;
                Ok(self.run(stream, pod, request.timeout()))
            }
            "StateChange" => {
                let StateChangeEvent { event, pod } = read(payload)?;
                if event == RUN_POD_SANDBOX {
                    return Ok(self.run(stream, pod, request.timeout()));
                }
                self.answer(stream, &Response::of(&Empty {}));
                Ok(None)
            }
            "Shutdown" => {
                self.answer(stream, &Response::of(&Empty {}));
                Ok(Some(Ask::Leave))
            }
            _ => Err(unknown(request)),
        }
    }

    /// A sandbox is about to run.
    fn run(
        &mut self,
        stream: u32,
        pod: Option<PodSandbox>,
        timeout: Option<Duration>,
    ) -> Option<Ask> {
        let sandbox = match Sandbox::try_from(pod.unwrap_or_default()) {
            Ok(sandbox) => sandbox,
            Err(error) => {
                let text = crate::error_chain(&error);
                self.answer(stream, &Status::new(code::INVALID_ARGUMENT, text.clone()).into());
                return Some(Ask::Refused(text));
            }
        };
        if sandbox.network == Network::Node {
            self.answer(stream, &Response::of(&Empty {}));
            return None;
        }
        Some(Ask::Hold { stream, sandbox, timeout })
    }
}

/// Reads a call's message.
fn read<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    let refused = |error: DecodeError| {
        Status::new(code::INVALID_ARGUMENT, format!("the request cannot be read: {error}"))
    };
    M::decode(payload).map_err(refused)
}

fn unknown(request: &Request) -> Status {
    let Request { service, method, .. } = request;
    Status::new(code::UNIMPLEMENTED, format!("there is no {method} of {service}"))
}
