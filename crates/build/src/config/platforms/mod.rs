//! The files of other platforms: what they say about a service in their own words becomes settings, and whatever they say
//! that means nothing here is named by file and line. None of it is ever fatal but a file that cannot be read at all.

mod apprunner;
mod captain;
mod cloudrun;
mod compose;
mod digitalocean;
mod fly;
mod heroku;
mod render;

use std::path::Path;

use trackbed_core::settings::{Origin, VolumeRequest};

use crate::config::Reader;
use crate::config::draft::{Draft, File};
use crate::config::formation;
use crate::config::keys::Key;
use crate::config::tree::{Member, Node, Value, brief};
use crate::text;

/// Reads whichever of the files are there. One that cannot be read is named: it was made for somebody else.
pub(crate) fn read(folder: &Path, draft: &mut Draft) {
    for (name, reader) in READERS {
        // One that is no text, or too large, says as little as one that is malformed.
        let read = text::find_settings(folder, name)
            .and_then(|text| text.map_or(Ok(()), |text| reader(name, &text, draft)));
        if let Err(error) = read {
            draft.warn("", None, format!("{}; the file is ignored", error.message));
        }
    }
}

/// Files and who reads them, the most specific first: of two that say the same, the first one counts.
pub(crate) const READERS: [(&str, Reader); 13] = [
    ("fly.toml", fly::read),
    ("render.yaml", render::read),
    (".do/app.yaml", digitalocean::read),
    ("service.yaml", cloudrun::read),
    ("apprunner.yaml", apprunner::read),
    ("captain-definition", captain::read),
    ("app.json", heroku::read),
    ("compose.yaml", compose::read),
    ("compose.yml", compose::read),
    ("docker-compose.yaml", compose::read),
    ("docker-compose.yml", compose::read),
    ("render.yml", render::read),
    (".do/app.yml", digitalocean::read),
];

/// A file of another platform while it is read.
struct Page<'a> {
    name: &'a str,
    draft: &'a mut Draft,
}

impl<'a> Page<'a> {
    fn new(name: &'a str, draft: &'a mut Draft) -> Self {
        Self { name, draft }
    }

    fn file(&self) -> File<'a> {
        File { name: self.name, origin: Origin::Platform }
    }

    /// Takes a value; one that does not fit is named.
    fn take(&mut self, key: Key, member: Option<&Member>) {
        let Some(member) = member else { return };
        if let Err(error) = self.draft.take(self.file(), key, member) {
            let message = error.message.split_once(": ").map_or(error.message.as_str(), |(_, what)| what);
            let message = format!("{message}; ignored");
            self.draft.warn(self.name, Some(member.place.line), message);
        }
    }

    /// Takes a value under another form than the file has.
    fn take_text(&mut self, key: Key, place: &Member, text: &str) {
        let node = Node { value: Value::Text(text.to_owned()), place: place.node.place };
        let member = Member { key: place.key.clone(), place: place.place, node };
        self.take(key, Some(&member));
    }

    /// Takes a command: a text, or a list of words.
    fn take_command(&mut self, key: Key, member: Option<&Member>) {
        let Some(member) = member else { return };
        match &member.node.value {
            Value::List(items) => {
                let words: Vec<String> = items.iter().filter_map(Node::text).map(quote).collect();
                self.take_text(key, member, &words.join(" "));
            }
            _ => self.take(key, Some(member)),
        }
    }

    /// Takes a time such as `30s`, `1m30s` or a number of seconds.
    fn take_time(&mut self, key: Key, member: Option<&Member>) {
        let Some(member) = member else { return };
        match member.node.text().and_then(seconds) {
            Some(seconds) => self.take_text(key, member, &seconds.to_string()),
            None => self.take(key, Some(member)),
        }
    }

    /// Takes a process of a table of names and commands.
    fn take_process(&mut self, member: &Member, is_served: bool) {
        let line = member.place.line;
        let command = member.node.text().map(str::trim).filter(|command| !command.is_empty());
        match (member.key.parse(), command) {
            (Ok(name), Some(command)) => {
                self.draft.declare_process(self.file(), name, command, line, is_served);
            }
            (Err(_), _) => self.note(line, format!("`{}` is not the name of a process", brief(&member.key))),
            (Ok(_), None) => self.note(line, format!("`{}` has no command, ignored", brief(&member.key))),
        }
    }

    /// Takes how many copies of a process run.
    fn take_count(&mut self, process: &Member, count: &Member) {
        let text = match &count.node.value {
            Value::Number(text) | Value::Text(text) => text.as_str(),
            _ => "",
        };
        let line = count.place.line;
        match (process.key.parse(), formation::parse_count(text)) {
            (Ok(name), Ok(count)) => {
                let place = format!("{}:{line}", self.name);
                self.draft.counts.push(formation::Counted { name, count, origin: Origin::Platform, place });
            }
            (_, Err(wanted)) => {
                self.note(
                    line,
                    format!("`{}` is {}; expected {wanted}; ignored", count.key, count.node.value),
                );
            }
            (Err(_), Ok(_)) => {
                self.note(line, format!("`{}` is not the name of a process", brief(&process.key)))
            }
        }
    }

    /// Takes variables that a file sets: a table of names, or a list of tables with `key`/`name` and `value`.
    fn take_variables(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        for member in node.members() {
            self.take_variable(&member.key, &member.node, member.place.line);
        }
        for item in node.items() {
            let name = item.get("key").or_else(|| item.get("name")).and_then(Node::text);
            if let (Some(name), Some(value)) = (name, item.get("value")) {
                self.take_variable(name, value, item.place.line);
            } else if let Some((name, value)) = item.text().and_then(|text| text.split_once('=')) {
                let node = Node { value: Value::Text(value.to_owned()), place: item.place };
                self.take_variable(name, &node, item.place.line);
            } else if let Some(name) = name.or_else(|| item.text()) {
                self.note(
                    item.place.line,
                    format!("`{name}` has no value here: set it with `trackbed variables set {name}=…`"),
                );
            }
        }
    }

    fn take_variable(&mut self, name: &str, value: &Node, line: u32) {
        let text = match &value.value {
            Value::Text(text) | Value::Number(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::List(_) | Value::Table(_) => return,
        };
        let place = format!("{}:{line}", self.name);
        if name == "PORT" {
            let member = Member { key: name.to_owned(), place: value.place, node: value.clone() };
            return self.take(Key::Port, Some(&member));
        }
        if let Err(reason) = self.draft.declare(name, text, Origin::Platform, place) {
            self.note(line, reason);
        }
    }

    /// Takes values for what a Dockerfile declares by `ARG`.
    fn take_build_args(&mut self, node: Option<&Node>) {
        if let Some(node) = node {
            self.draft.take_build_args(File { name: self.name, origin: Origin::Platform }, node);
        }
    }

    /// Asks for a volume, whose name is made fit.
    fn take_volume(&mut self, name: &str, mount: &str, line: u32) {
        let plain: String =
            name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let plain = plain.trim_matches('-');
        let name = plain.parse().or_else(|_| "data".parse());
        match (name, mount.parse()) {
            (Ok(name), Ok(mount)) => {
                let place = format!("{}:{line}", self.name);
                self.draft.volumes.push((VolumeRequest { name, mount }, Origin::Platform, place));
            }
            (_, Err(error)) => self.note(line, format!("this volume is ignored: {error}")),
            (Err(error), _) => self.note(line, format!("this volume is ignored: {error}")),
        }
    }

    fn note(&mut self, line: u32, message: impl Into<String>) {
        self.draft.warn(self.name, Some(line), message);
    }

    /// Names the keys that nobody reads.
    fn unknown(&mut self, table: &Node, read: &[&str], quiet: &[&str], prefix: &str) {
        self.draft.unknown(self.file(), table, read, quiet, prefix);
    }

    /// Says that an image is named there which is made elsewhere from this very source.
    fn note_image(&mut self, member: Option<&Member>) {
        if let Some(member) = member {
            let what = format!("`{}` is not used: the image is made from this source", member.key);
            self.note(member.place.line, what);
        }
    }

    /// Takes a command that prepares a release.
    fn take_release(&mut self, member: Option<&Member>) {
        if let Some(member) = member
            && let Err(error) = self.draft.take_commands(self.file(), Key::PreDeploy, member)
        {
            self.draft.warn("", None, format!("{}; ignored", error.message));
        }
    }
}

/// Quotes a word for the shell where that is needed.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,${}".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Reads Go's way of writing times: `500ms`, `30s`, `1m30s`.
fn seconds(text: &str) -> Option<f64> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += number
            * match &rest[digits..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        assert_eq!([seconds("30"), seconds("soon"), seconds("")], [None; 3]);
    }

    #[test]
    fn words_stay_what_they_are_in_a_shell() {
        assert_eq!(quote("--port=$PORT"), "--port=$PORT");
        assert_eq!(quote("it's"), "'it'\\''s'");
        assert_eq!(quote(""), "''");
    }
}
