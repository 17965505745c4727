//! What all readers fill: values with their origin, volumes, and warnings. The strongest origin wins, key by key.

use trackbed_core::ids::ParseError;
use trackbed_core::plan::Warning;
use trackbed_core::ports::PortError;
use trackbed_core::settings::{Origin, VolumeRequest};
use trackbed_core::{ProcessName, VariableName};

use crate::config::formation;
use crate::config::keys::{Key, Setting};
use crate::config::tree::{Member, Node, Value, brief};

/// Oddities that are told; a file with more is not one that anybody wrote.
const WARNINGS_MAX: usize = 200;

/// One value that somebody gave.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// Which key.
    pub(crate) key: Key,
    /// The checked value.
    pub(crate) setting: Setting,
    /// Who gave it.
    pub(crate) origin: Origin,
    /// Where: `railway.json:4`.
    pub(crate) place: String,
}

/// A variable that a file sets.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// Its name.
    pub(crate) name: VariableName,
    /// Its value; no secret, because it stands in the source.
    pub(crate) value: String,
    /// Who gave it.
    pub(crate) origin: Origin,
    /// Where.
    pub(crate) place: String,
}

/// Everything that was read so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    given: Vec<Given>,
    /// Volumes asked for, with place.
    pub(crate) volumes: Vec<(VolumeRequest, Origin, String)>,
    /// Variables that files set, with place; the owner's own win.
    pub(crate) variables: Vec<Declared>,
    /// Values that files give to variables that a Dockerfile declares by `ARG`; the first of a name counts, and the
    /// service's own win.
    pub(crate) build_args: Vec<Declared>,
    /// Processes that files declare, in the order in which they were read.
    pub(crate) processes: Vec<formation::Declared>,
    /// How many copies of a process somebody wants.
    pub(crate) counts: Vec<formation::Counted>,
    /// Where `nixpacks.toml` is instead, with the place that says so.
    pub(crate) nixpacks_at: Option<(String, String)>,
    /// What is odd.
    pub(crate) warnings: Vec<Warning>,
}

/// A file that is being read.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The strength of what it says.
    pub(crate) origin: Origin,
}

impl Draft {
    /// Adds a value. Of two with the same origin the one added first wins.
    pub(crate) fn give(&mut self, given: Given) {
        self.given.push(given);
    }

    /// Finds the strongest value of a key.
    pub(crate) fn find(&self, key: Key) -> Option<&Given> {
        self.given.iter().filter(|given| given.key == key).min_by_key(|given| given.origin)
    }

    /// Forgets every value of a key.
    pub(crate) fn forget(&mut self, key: Key) {
        self.given.retain(|given| given.key != key);
    }

    /// Forgets what files say that are about builds by detection, which an image that is made elsewhere has none of, and
    /// the processes beside the start command: a container runs one. What is forgotten is told.
    pub(crate) fn leave_to_image(&mut self, image: &str) {
        let replaced = [Origin::Railpack, Origin::Nixpacks, Origin::Procfile];
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.given).into_iter().partition(|given| replaced.contains(&given.origin));
        self.given = kept;
        let start = self.find(Key::StartCommand).map(|given| given.place.clone());
        let mut places: Vec<String> = gone.into_iter().map(|given| given.place).collect();
        for process in std::mem::take(&mut self.processes) {
            if Some(&process.place) != start.as_ref() && !places.contains(&process.place) {
                places.push(process.place);
            }
        }
        for place in places {
            self.warn_at(
                &place,
                format!("not used: {image} says what is started, and a container runs one process"),
            );
        }
    }

    /// Finds the strongest value of a key that is a text.
    pub(crate) fn text(&self, key: Key) -> Option<String> {
        match self.find(key).map(|given| &given.setting) {
            Some(Setting::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Adds something odd in a file.
    pub(crate) fn warn(&mut self, file: &str, line: Option<u32>, message: impl Into<String>) {
        if self.warnings.len() > WARNINGS_MAX {
            return;
        }
        let file = (!file.is_empty()).then(|| file.to_owned());
        if self.warnings.len() == WARNINGS_MAX {
            let message = format!("more than {WARNINGS_MAX} oddities; the others are not told");
            self.warnings.push(Warning { file, line, message });
            return;
        }
        self.warnings.push(Warning { file, line, message: message.into() });
    }

    /// Adds something odd at a place such as `Procfile:2`.
    pub(crate) fn warn_at(&mut self, place: &str, message: impl Into<String>) {
        match place.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
            Some((file, Ok(line))) => self.warn(file, Some(line), message),
            Some((_, Err(_))) | None => self.warn("", None, message),
        }
    }

    /// Adds a value from a file after checking its type.
    pub(crate) fn take(&mut self, file: File<'_>, key: Key, member: &Member) -> Result<(), PortError> {
        let line = member.place.line;
        let wrong = |expected: &str| {
            PortError::new(format!(
                "{}:{line}: `{}` is {}; expected {expected}",
                file.name, member.key, member.node.value
            ))
            .hint(format!("mend line {line} of {} and deploy again", file.name))
        };
        let text = match &member.node.value {
            Value::Null => return Ok(()),
            Value::Text(text) if text.trim().is_empty() => return Ok(()),
            Value::Text(text) => text.as_str(),
            Value::Number(number) if key.is_number() => number.as_str(),
            Value::Bool(true) if key.is_flag() => "true",
            Value::Bool(false) if key.is_flag() => "false",
            Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Table(_) => {
                let expected = match (key.is_number(), key.is_flag()) {
                    (true, _) => "a number",
                    (_, true) => "true or false",
                    (false, false) => "a text in quotes",
                };
                return Err(wrong(expected));
            }
        };
        let setting = key.parse(text).map_err(|expected| wrong(&expected))?;
        self.give(Given { key, setting, origin: file.origin, place: format!("{}:{line}", file.name) });
        Ok(())
    }

    /// Adds a value that this reader has put together.
    pub(crate) fn give_at(&mut self, file: File<'_>, key: Key, line: u32, setting: Setting) {
        self.give(Given { key, setting, origin: file.origin, place: format!("{}:{line}", file.name) });
    }

    /// Adds a command that a file writes as a text or as a list of commands, which run one after the other.
    pub(crate) fn take_commands(
        &mut self,
        file: File<'_>,
        key: Key,
        member: &Member,
    ) -> Result<(), PortError> {
        let Value::List(items) = &member.node.value else { return self.take(file, key, member) };
        let commands: Vec<&str> = items.iter().filter_map(Node::text).map(str::trim).collect();
        if commands.len() < items.len() {
            let message = format!("`{}`: what is no text in this list is ignored", brief(&member.key));
            self.warn(file.name, Some(member.place.line), message);
        }
        let commands: Vec<&str> = commands.into_iter().filter(|command| !command.is_empty()).collect();
        if !commands.is_empty() {
            self.give_at(file, key, member.place.line, Setting::Text(commands.join(" && ")));
        }
        Ok(())
    }

    /// Takes values for what a Dockerfile declares by `ARG`: a table of names, or a list of `NAME=value`.
    pub(crate) fn take_build_args(&mut self, file: File<'_>, node: &Node) {
        let members = node.members().iter().map(|member| {
            let text = match &member.node.value {
                Value::Text(text) | Value::Number(text) => Some(text.clone()),
                Value::Bool(value) => Some(value.to_string()),
                Value::Null | Value::List(_) | Value::Table(_) => None,
            };
            (member.key.clone(), text, member.place.line)
        });
        let items = node.items().iter().filter_map(|item| {
            let text = item.text()?;
            let (name, value) =
                text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            Some((name.to_owned(), value.map(str::to_owned), item.place.line))
        });
        for (name, value, line) in members.chain(items) {
            let name: VariableName = match name.parse() {
                Ok(name) => name,
                Err(error) => {
                    self.warn(file.name, Some(line), format!("this value is ignored: {error}"));
                    continue;
                }
            };
            match value.filter(|value| !value.contains("${")) {
                Some(_) if self.build_args.iter().any(|known| known.name == name) => {}
                Some(value) => {
                    let place = format!("{}:{line}", file.name);
                    self.build_args.push(Declared { name, value, origin: file.origin, place });
                }
                None => self.warn(
                    file.name,
                    Some(line),
                    format!("the build gets `{name}` as it is set for the service: trackbed variables set {name}=…"),
                ),
            }
        }
    }

    /// Adds the variables of a table of names.
    pub(crate) fn declare_table(&mut self, file: File<'_>, table: &Node) {
        for member in table.members() {
            let text = match &member.node.value {
                Value::Text(text) | Value::Number(text) => text.clone(),
                Value::Bool(value) => value.to_string(),
                Value::Null | Value::List(_) | Value::Table(_) => {
                    let message =
                        format!("variable `{}` is {}; ignored", brief(&member.key), member.node.value);
                    self.warn(file.name, Some(member.place.line), message);
                    continue;
                }
            };
            let place = format!("{}:{}", file.name, member.place.line);
            if let Err(reason) = self.declare(&member.key, text, file.origin, place) {
                self.warn(file.name, Some(member.place.line), reason);
            }
        }
    }

    /// Adds a variable. Of two with the same name the one added first wins.
    ///
    /// # Errors
    /// When the name is none; says so.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        value: String,
        origin: Origin,
        place: String,
    ) -> Result<(), String> {
        let name: VariableName = name.parse().map_err(|error: ParseError| format!("{error}; ignored"))?;
        if !self.variables.iter().any(|known| known.name == name) {
            self.variables.push(Declared { name, value, origin, place });
        }
        Ok(())
    }

    /// Adds a process that a file declares.
    pub(crate) fn declare_process(
        &mut self,
        file: File<'_>,
        name: ProcessName,
        command: &str,
        line: u32,
        is_served: bool,
    ) {
        let place = format!("{}:{line}", file.name);
        let (command, origin) = (command.to_owned(), file.origin);
        self.processes.push(formation::Declared { name, command, is_served, origin, place });
    }

    /// Adds the volumes of a `[[volumes]]` list.
    pub(crate) fn take_volumes(&mut self, file: File<'_>, member: &Member) -> Result<(), PortError> {
        let Value::List(items) = &member.node.value else {
            return Err(PortError::new(format!(
                "{}:{}: `volumes` is {}; expected a list of tables with `name` and `mount`",
                file.name, member.place.line, member.node.value
            ))
            .hint("write it as:\n[[volumes]]\nname = \"data\"\nmount = \"/data\""));
        };
        for item in items {
            let line = item.place.line;
            let mount = item.get("mount").or_else(|| item.get("mountPath"));
            let Some(mount) = mount.and_then(Node::text) else {
                return Err(PortError::new(format!(
                    "{}:{line}: this volume has no `mount`; expected a path such as \"/data\"",
                    file.name
                )));
            };
            let mount = mount
                .parse()
                .map_err(|error| PortError::new(format!("{}:{line}: volume: {error}", file.name)))?;
            let name = item.get("name").and_then(Node::text).unwrap_or("data");
            let name = name
                .parse()
                .map_err(|error| PortError::new(format!("{}:{line}: volume: {error}", file.name)))?;
            self.unknown(file, item, &["name", "mount", "mountPath"], &[], "volumes.");
            let place = format!("{}:{line}", file.name);
            self.volumes.push((VolumeRequest { name, mount }, file.origin, place));
        }
        Ok(())
    }

    /// Warns of keys that nobody reads.
    pub(crate) fn unknown(
        &mut self,
        file: File<'_>,
        table: &Node,
        read: &[&str],
        quiet: &[&str],
        prefix: &str,
    ) {
        for member in table.members() {
            let key = member.key.as_str();
            if !read.contains(&key) && !quiet.contains(&key) && member.node.value != Value::Null {
                if self.warnings.len() > WARNINGS_MAX {
                    return;
                }
                let meant = nearest(key, read.iter().chain(quiet));
                let key = brief(key);
                let meant = meant.map(|near| format!("; did you mean `{prefix}{near}`?")).unwrap_or_default();
                let message = format!("unknown key `{prefix}{key}`, ignored{meant}");
                self.warn(file.name, Some(member.place.line), message);
            }
        }
    }
}

/// Longest key that may be a slip of the fingers.
const TYPED_MAX: usize = 80;

/// Finds the key that was probably meant: the same but for case and separators, or one or two letters away.
fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a &'a str>) -> Option<&'a str> {
    if typed.len() > TYPED_MAX {
        return None;
    }
    let plain = |key: &str| {
        let letters = key.chars().filter(|c| !matches!(c, '_' | '-'));
        letters.collect::<String>().to_lowercase()
    };
    let typed = plain(typed);
    // A short key is two letters from almost anything.
    let most = if typed.chars().count() < 5 { 1 } else { 2 };
    let near = known.map(|key| (distance(&typed, &plain(key)), *key)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, _)| *distance <= most).map(|(_, key)| key)
}

/// Counts the letters to add, drop or change to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// Refuses a known table that is something else.
pub(crate) fn expect_table(file: &str, member: &Member) -> Result<(), PortError> {
    match member.node.value {
        Value::Table(_) => Ok(()),
        _ => Err(PortError::new(format!(
            "{file}:{}: `{}` is {}; expected a table",
            member.place.line, member.key, member.node.value
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_nearly_right_is_offered() {
        let known = ["healthcheckPath", "healthcheckTimeout", "limits", "port", "cpu"];
        let near = |typed| nearest(typed, known.iter());
        assert_eq!(near("healthcheckpath"), Some("healthcheckPath"));
        assert_eq!(near("healthcheck_timeout"), Some("healthcheckTimeout"));
        assert_eq!([near("limit"), near("prot"), near("ports")], [Some("limits"), None, Some("port")]);
        assert_eq!([near("name"), near("memory"), near("gpus")], [None; 3]);
    }
}
