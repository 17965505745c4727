//! `trackbed check`: what ruins a deployment and can be seen before it, found in the source as it stands. Nothing of the
//! source runs. A rule rather says nothing than something that is not so.
//!
//! Read in this order: [`app`] (what rules look at), then the rules, one file a family; below them `tree` (files within
//! limits), `lex` (code as tokens), `code` and `python` (their shapes), `reads` (the environment).

mod app;
mod code;
mod command_line;
mod data;
mod health;
mod lex;
mod listening;
mod local;
mod places;
mod python;
mod reads;
mod service;
mod settings;
mod streams;
mod tree;
mod variables;
mod writers;

use std::path::{Path, PathBuf};

use trackbed_core::finding::{Finding, Findings, Level, Rule};

use app::{App, Facts};
use tree::Tree;

pub use local::{Lent, LocalCheck, check_folder};
pub(crate) use service::{Known, facts};

/// Most findings of one rule; more would not be read.
const OF_A_RULE_MAX: usize = 20;

/// Looks at a source. `listed` are its files, relative; none lists them. `refused` is what was found without looking at code.
pub(crate) fn look(
    folder: &Path,
    listed: Option<&[PathBuf]>,
    facts: &Facts,
    refused: Option<Finding>,
) -> Findings {
    let tree = Tree::new(folder, listed);
    let app = App::read(&tree, facts);
    let mut list: Vec<Finding> = refused.into_iter().collect();
    // Nothing of a static site runs: its code is the browser's.
    let is_site = facts.provider == crate::site::PROVIDER;
    for rule in [
        data::find,
        variables::find,
        settings::find,
        command_line::find,
        listening::find,
        health::find,
        streams::find,
        writers::find,
        writers::find_old_sqlite,
    ] {
        if !is_site {
            rule(&app, &mut list);
        }
    }
    if let Some(what) = tree.left_out() {
        list.push(Finding {
            rule: Rule::LookBounded,
            level: Level::Note,
            file: None,
            line: None,
            what,
            why: "the rest was not looked at".to_owned(),
            mend: "drop what the app does not need by lines in .railwayignore or .gitignore".to_owned(),
        });
    }
    list.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.level, finding.rule, finding.file.clone(), finding.line);
        key(a).cmp(&key(b))
    });
    list.dedup_by(|a, b| a.rule == b.rule && a.place() == b.place() && a.what == b.what);
    for rule in Rule::ALL {
        let mut count = 0;
        list.retain(|finding| {
            count += usize::from(finding.rule == rule);
            finding.rule != rule || count <= OF_A_RULE_MAX
        });
    }
    Findings { list, files_read: tree.files_read() }
}

#[cfg(test)]
mod tests;
