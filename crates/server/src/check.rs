//! `trackbed check`: a look at a folder without a box, in the shapes that the command line prints.

use std::path::PathBuf;

use trackbed_api::{CheckReport, CheckRule, Finding};
use trackbed_build::{Lent, LocalCheck, check_folder};
use trackbed_core::finding::Rule;

/// What is looked at.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// The folder.
    pub folder: PathBuf,
    /// Its files that would be deployed, relative to it.
    pub files: Vec<PathBuf>,
    /// Variables with their values, and mounts of volumes, of the service when a box knows it.
    pub service: Option<Lent>,
    /// Where the box of this user keeps its data, whether there is one or not.
    pub data_dir: PathBuf,
    /// The environment of the process.
    pub environment: Vec<(String, String)>,
}

/// Looks. Blocking; runs nothing of the folder and changes nothing.
pub fn check(config: CheckConfig) -> CheckReport {
    let CheckConfig { folder, files, service, data_dir, environment } = config;
    let is_service_known = service.is_some();
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let found = check_folder(&LocalCheck { folder, files, service, environment, data_dir });
    let findings = found.list.into_iter().map(|finding| Finding {
        rule: finding.rule.id().to_owned(),
        level: finding.level.to_string(),
        file: finding.file,
        line: finding.line,
        what: finding.what,
        why: finding.why,
        mend: finding.mend,
    });
    CheckReport {
        findings: findings.collect(),
        files_read: found.files_read,
        is_service_known,
        rules: Rule::ALL.map(rule).to_vec(),
    }
}

fn rule(rule: Rule) -> CheckRule {
    CheckRule { id: rule.id(), summary: rule.summary(), help: rule.help(), level: rule.worst().as_str() }
}
