//! `trackbed rollback`: an earlier release again, with its data when that is wanted.

use anyhow::Result;
use trackbed_api::{DeploymentRequest, RollbackPreview};

use crate::changes;
use crate::deploy::{self, Follow};
use crate::session::Session;
use crate::target::Target;

/// Go back to an earlier release: its code and variables, and its data with --with-data
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed rollback\n  trackbed rollback v3\n  trackbed rollback v3 --with-data --dry-run\n  \
                  trackbed rollback v3 --with-data\n\n\
                  `trackbed deployments` lists the releases. With --with-data the volumes become what they were when \
                  that release served last; newer data is kept as a restore point."
)]
pub(crate) struct Args {
    /// The release to go back to [default: the one before the live one]
    #[arg(value_name = "vN", value_parser = parse_version)]
    version: Option<u32>,
    /// Put the data back, too
    #[arg(long)]
    with_data: bool,
    /// Only show how the data would change
    #[arg(long, requires = "with_data", conflicts_with = "detach")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    follow: Follow,
}

fn parse_version(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('v').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a release is `v` and a number, such as v3".to_owned())
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    let asks = args.with_data && !args.yes && !args.follow.json && session.input.can_ask(output);
    if args.dry_run || asks {
        output.talk("comparing the data, which takes a while with much of it …");
        let preview = names.of(&client).preview_rollback(args.version).await?;
        if args.dry_run && args.follow.json {
            output.json_pretty(&preview)?;
            return Ok(0);
        }
        for line in lines(&preview) {
            if args.dry_run { output.result(line)? } else { output.talk(line) }
        }
        if args.dry_run {
            return Ok(0);
        }
        let question = format!("put {} of {names} and its data back?", preview.release);
        if !session.agrees(false, &question)? {
            return Ok(1);
        }
    }
    let request = DeploymentRequest {
        version: args.version,
        with_data: args.with_data,
        ..names.deployment("rollback")
    };
    deploy::deploy(session, &client, &request, args.follow).await
}

fn lines(preview: &RollbackPreview) -> Vec<String> {
    if preview.volumes.is_empty() {
        return vec![format!(
            "no data would change: the service has no volume with data of {}",
            preview.release
        )];
    }
    preview.volumes.iter().flat_map(changes::lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_typed_with_or_without_its_letter() {
        assert_eq!([parse_version("v3"), parse_version("12")], [Ok(3), Ok(12)]);
        assert!(["v0", "v", "-1", "latest", "vv3"].into_iter().all(|text| parse_version(text).is_err()));
    }
}
