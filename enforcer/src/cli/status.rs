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
use crate::agent::api::{AgentReport, Reply, Request, StatusRequest};

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
        Reply::GivingWay {} => return Err(ClientError::Ended),
    };
    if args.ready {
        return match not_ready(&reply.report.agent, args.instance.as_deref()) {
            Some(reason) => Err(ClientError::Refused(reason)),
            None => Ok(true),
        };
    }
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

/// Why the agent that is asked about does not look after this node with a complete plan.
fn not_ready(agent: &AgentReport, instance: Option<&str>) -> Option<String> {
    if instance.is_some() && agent.instance.as_deref() != instance {
        return Some("another agent looks after this node".to_owned());
    }
    (!agent.armed).then(|| "no complete plan is in force yet".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agent_that_is_meant_is_ready() {
        let agent = |instance: Option<&str>, armed| AgentReport {
            instance: instance.map(Into::into),
            armed,
            ..AgentReport::default()
        };
        assert_eq!(not_ready(&agent(None, true), None), None);
        assert_eq!(not_ready(&agent(Some("a"), true), None), None);
        assert_eq!(not_ready(&agent(Some("a"), true), Some("a")), None);
        assert!(not_ready(&agent(Some("a"), true), Some("b")).is_some());
        assert!(not_ready(&agent(None, true), Some("b")).is_some());
        assert!(not_ready(&agent(Some("a"), false), Some("a")).is_some());
    }
}
