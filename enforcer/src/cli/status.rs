//! `enforcer status`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{
    args::{StatusArgs, StatusOutput},
    client::{self, Client, ClientError},
    report,
    terminal::Style,
};
use crate::agent::api::{Reply, Request, StatusRequest};

/// Runs the command; exit code 1 if the answer is no.
#[must_use]
pub fn run(args: &StatusArgs) -> ExitCode {
    let style = Style::stdout(args.color);
    client::run(show(args, style, &mut io::stdout().lock()))
}

async fn show(args: &StatusArgs, style: Style, out: &mut impl Write) -> Result<bool, ClientError> {
    let request = Request::Status(StatusRequest {
        wait_seconds: args.wait,
        only: args.only.clone(),
        ignore_unenforceable: args.ignore_unenforceable,
    });
    let mut client = Client::ask(&args.run_dir, &request).await?;
    let line = client.next().await?;
    let reply = match serde_json::from_str(line).map_err(ClientError::NotUnderstood)? {
        Reply::Status(reply) => reply,
        Reply::Error(reason) => return Err(ClientError::Refused(reason)),
        Reply::End {} => return Err(ClientError::Ended),
    };
    let text = match args.output {
        StatusOutput::Json => {
            let mut text =
                serde_json::to_string_pretty(&reply).map_err(ClientError::NotUnderstood)?;
            text.push('\n');
            text
        }
        StatusOutput::Text => report::text(&reply, style),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ClientError::Output)?;
    Ok(reply.failure.is_none())
}
