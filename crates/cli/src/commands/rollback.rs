//! `trackbed rollback`: an earlier release again.

use anyhow::Result;

use crate::deploy::{self, Follow};
use crate::session::Session;
use crate::target::Target;

/// Go back to an earlier release: its code and variables, not its data
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed rollback\n  trackbed rollback v3\n\n\
                        `trackbed deployments` lists the releases.")]
pub(crate) struct Args {
    /// The release to go back to [default: the one before the live one]
    #[arg(value_name = "vN", value_parser = parse_version)]
    version: Option<u32>,
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
    deploy::again(session, &args.target, "rollback", args.version, args.follow).await
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
