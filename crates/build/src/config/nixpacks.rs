//! Reads `nixpacks.toml`: start command, build commands and variables. The packages of its phases are Nix's own and are
//! named as ignored.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File};
use crate::config::keys::Key;
use crate::config::toml;
use crate::config::tree::{Node, brief};

/// Reads the file.
pub(crate) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    take(File { name, origin: Origin::Nixpacks }, &toml::parse(name, text)?, "", draft)
}

/// Takes what a plan of Nixpacks says, in a file of its own or as a table of another, whose path is the prefix.
pub(crate) fn take(file: File<'_>, tree: &Node, prefix: &str, draft: &mut Draft) -> Result<(), PortError> {
    if let Some(start) = tree.get("start") {
        if let Some(member) = start.member("cmd") {
            draft.take(file, Key::StartCommand, member)?;
        }
        draft.unknown(file, start, &["cmd"], &["runImage"], &format!("{prefix}start."));
    }
    for phase in tree.get("phases").map(Node::members).unwrap_or_default() {
        let title = format!("{prefix}phases.{}", brief(&phase.key));
        if phase.key == "build"
            && let Some(commands) = phase.node.member("cmds").filter(|member| is_whole(&member.node))
        {
            draft.take_commands(file, Key::BuildCommand, commands)?;
            draft.unknown(file, &phase.node, &["cmds"], &["dependsOn"], &format!("{title}."));
            continue;
        }
        let message = format!("`{title}` is not run: dependencies are found by Trackbed itself");
        draft.warn(file.name, Some(phase.place.line), message);
    }
    if let Some(variables) = tree.get("variables") {
        draft.declare_table(file, variables);
    }
    draft.unknown(file, tree, &["start", "phases", "variables"], &["providers"], prefix);
    Ok(())
}

/// Commands with `...` among them add to those that Nixpacks would find, which are not ours.
fn is_whole(commands: &Node) -> bool {
    !commands.items().is_empty()
        && commands.items().iter().all(|item| item.text().is_some_and(|it| it != "..."))
}
