//! `enforcer observe`: a client of any Hubble server, of ours by default.

pub mod args;
mod file;
pub mod filters;
pub mod print;
mod request;
mod select;
pub mod times;

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    process::ExitCode,
};

use enforcer_hubble::observer::observer_client::ObserverClient;
use futures_util::FutureExt as _;
use tonic::{Code, Streaming};

use self::{
    args::{EventArgs, FlowArgs, ObserveArgs, What},
    print::{Layout, Options, Output, PrintError, Printer},
};
use super::{
    server::{self, Connection, ServerError},
    terminal::Style,
};

/// Why there is nothing more to show.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server ended while it was followed.
    #[error(
        "{server} ended the connection; --follow does not connect again by itself: run the command \
         anew"
    )]
    Ended {
        /// Who.
        server: String,
    },
    /// The output.
    #[error(transparent)]
    Print(#[from] PrintError),
    /// The input file.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// A filter that only a server can judge means nothing.
    #[error(transparent)]
    Select(#[from] select::SelectError),
}

impl ObserveError {
    /// Whether the reader of our output has gone, which is no failure.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Print(PrintError::Write(e)) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Runs the command. Ctrl-C ends it as wished: exit code 0.
#[must_use]
pub fn run(args: &ObserveArgs) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let done = server::block_on(async {
        let mut out = BufWriter::new(io::stdout());
        let shown = async {
            match &args.what {
                None => flows(&args.flows, terminal, &mut out).await,
                Some(What::Flows(args)) => flows(args, terminal, &mut out).await,
                Some(What::AgentEvents(args)) => events(args, Events::Agent, &mut out).await,
                Some(What::DebugEvents(args)) => events(args, Events::Debug, &mut out).await,
            }
        };
        tokio::select! {
            shown = shown => shown,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    match done {
        Err(error) => server::fail(&error),
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Ok(Err(error)) => server::fail(&error),
    }
}

/// How flows are printed.
fn options(args: &FlowArgs, terminal: bool) -> Options {
    let style = Style::stdout(args.flow_form.color);
    let watched = terminal && args.select.follow && args.form.output == Output::Compact;
    Options {
        output: args.form.output,
        time: args.form.time_format,
        node: args.form.print_node_name,
        policies: args.form.print_policy_names.unwrap_or(watched),
        names: args.flow_form.ip_translation && !args.flow_form.numeric,
        why: args.flow_form.why,
        warnings: !args.silent_errors,
        style,
        layout: watched.then(|| Layout::new(style.width)),
    }
}

async fn flows(args: &FlowArgs, terminal: bool, out: &mut impl Write) -> Result<(), ObserveError> {
    if args.print_raw_filters {
        out.write_all(args.filters.raw().as_bytes()).map_err(PrintError::from)?;
        out.flush().map_err(PrintError::from)?;
        return Ok(());
    }
    let options = options(args, terminal);
    let mut printer = Printer::new(out, io::stderr(), options);
    let request = request::flows(args, &options);
    if let Some(path) = &args.input_file {
        let wanted = select::Wanted::new(&request)?;
        return file::show(path, args, &request, &wanted, &mut printer);
    }
    let server = server::connect(&args.server).await?;
    let mut client =
        ObserverClient::new(server.channel.clone()).max_decoding_message_size(server::LONGEST);
    let asked = client.get_flows(args.server.request(request)).await;
    let stream = asked.map_err(|status| server.refused(&status))?.into_inner();
    show(stream, &server, args.select.follow, &mut printer, |printer, response| {
        printer.flows(&response)
    })
    .await
}

#[derive(Clone, Copy)]
enum Events {
    Agent,
    Debug,
}

async fn events(
    args: &EventArgs,
    events: Events,
    out: &mut impl Write,
) -> Result<(), ObserveError> {
    let options = Options {
        output: args.form.output,
        time: args.form.time_format,
        node: args.form.print_node_name,
        policies: false,
        names: true,
        why: false,
        warnings: true,
        style: Style { color: false, width: 80 },
        layout: None,
    };
    let mut printer = Printer::new(out, io::stderr(), options);
    let server = server::connect(&args.server).await?;
    let mut client =
        ObserverClient::new(server.channel.clone()).max_decoding_message_size(server::LONGEST);
    let follow = args.select.follow;
    match events {
        Events::Agent => {
            let asked = args.server.request(request::agent_events(args));
            let asked = client.get_agent_events(asked).await;
            let stream = asked.map_err(|status| server.refused(&status))?.into_inner();
            let print = |printer: &mut Printer<_, _>, response| printer.agent(&response);
            show(stream, &server, follow, &mut printer, print).await
        }
        Events::Debug => {
            let asked = args.server.request(request::debug_events(args));
            let asked = client.get_debug_events(asked).await;
            let stream = asked.map_err(|status| server.refused(&status))?.into_inner();
            let print = |printer: &mut Printer<_, _>, response| printer.debug(&response);
            show(stream, &server, follow, &mut printer, print).await
        }
    }
}

/// Prints an answer to its end.
async fn show<M, W: Write, E: Write>(
    mut stream: Streaming<M>,
    server: &Connection,
    follow: bool,
    printer: &mut Printer<W, E>,
    print: impl Fn(&mut Printer<W, E>, M) -> Result<(), PrintError>,
) -> Result<(), ObserveError> {
    loop {
        let next = match stream.message().now_or_never() {
            Some(next) => next,
            None => {
                // Nothing is there for now: who watches wants to see what is.
                if follow {
                    printer.flush()?;
                }
                stream.message().await
            }
        };
        match next {
            Ok(Some(message)) => print(printer, message)?,
            Ok(None) => {
                printer.finish()?;
                let server = server.name.clone();
                return if follow { Err(ObserveError::Ended { server }) } else { Ok(()) };
            }
            Err(status) => {
                printer.finish()?;
                if follow && matches!(status.code(), Code::Unavailable | Code::Unknown) {
                    return Err(ObserveError::Ended { server: server.name.clone() });
                }
                return Err(server.refused(&status).into());
            }
        }
    }
}

#[cfg(test)]
mod tests;
