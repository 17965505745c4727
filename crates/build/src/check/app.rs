//! What rules look at: the code that the start command leads to, and what is known about the service.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::check::code::Code;
use crate::check::lex::{Kind, Language};
use crate::check::python::{self, Statement};
use crate::check::reads::{Read, reads};
use crate::check::tree::{Tree, is_of_app};
use crate::python::command::{self, Ask};
use crate::source_tree::join;

/// What is known about the service apart from its code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// What builds it; empty when nothing does.
    pub(crate) provider: String,
    /// The start command, and where it is said.
    pub(crate) start: Option<(String, String)>,
    /// What runs beside it, each with its name.
    pub(crate) sides: Vec<Side>,
    /// The health path, and where it is said.
    pub(crate) health: Option<(String, String)>,
    /// The port that it insists on.
    pub(crate) port: Option<u16>,
    /// Variables that are set, with their values.
    pub(crate) variables: BTreeMap<String, String>,
    /// Whether these are all: a service on a box.
    pub(crate) is_service: bool,
    /// Where volumes are mounted.
    pub(crate) mounts: Vec<String>,
    /// Version of the interpreter's SQLite.
    pub(crate) sqlite: Option<String>,
}

/// A process beside the one that serves.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) command: String,
    /// How many copies run; not zero.
    pub(crate) count: u32,
}

impl Facts {
    /// Returns whether a variable is set, or will be by the platform.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        const ALWAYS: [&str; 12] = [
            "PORT",
            "PATH",
            "HOME",
            "PWD",
            "USER",
            "LANG",
            "TZ",
            "HOSTNAME",
            "SHELL",
            "TERM",
            "VIRTUAL_ENV",
            "TMPDIR",
        ];
        self.variables.keys().any(|known| known.eq_ignore_ascii_case(name))
            || ALWAYS.contains(&name)
            || name.starts_with("RAILWAY_")
            || name.starts_with("TRACKBED_")
    }
}

/// A file of code, with its statements where the language has any.
pub(crate) struct Unit {
    pub(crate) code: Code,
    pub(crate) statements: Vec<Statement>,
    pub(crate) reads: Vec<Read>,
}

/// The app.
pub(crate) struct App<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) facts: &'a Facts,
    /// The code that the start command leads to; all that looks like the app's where that cannot be told.
    pub(crate) units: Vec<Unit>,
    /// Whether that could be told.
    pub(crate) is_by_entry: bool,
    /// The start command, or the script of package.json behind it.
    command: String,
    /// The simple commands of that.
    pub(crate) asks: Vec<Ask>,
    /// Files that the start command runs as scripts, so that what they do as the main program is done.
    pub(crate) scripts: Vec<String>,
}

impl<'a> App<'a> {
    /// Reads the code.
    pub(crate) fn read(tree: &'a Tree, facts: &'a Facts) -> Self {
        let command = facts.start.as_ref().map(|(command, _)| by_script(tree, command)).unwrap_or_default();
        let asks = command::read(&command);
        let mut app =
            Self { tree, facts, units: Vec::new(), is_by_entry: true, command, asks, scripts: Vec::new() };
        let Some(language) = app.language() else { return app };
        let mut seen = BTreeSet::new();
        let mut todo: VecDeque<String> = app.entries(language).into();
        while let Some(path) = todo.pop_front() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let Some(unit) = app.unit(&path, language) else { continue };
            todo.extend(app.leads_to(&unit).into_iter().filter(|path| !seen.contains(path)));
            app.units.push(unit);
        }
        if app.units.is_empty() {
            app.is_by_entry = false;
            let names = tree.names().filter(|name| Language::of(name) == Some(language) && is_of_app(name));
            // What is drawn in a browser reads no environment of the box.
            let names = names.filter(|name| !name.ends_with("sx"));
            app.units = names.filter_map(|name| app.unit(name, language)).collect();
        }
        app
    }

    /// Returns the folder in which the app starts, relative to the source.
    pub(crate) fn folder(&self) -> &str {
        self.asks.last().map_or("", |ask| ask.folder.as_str())
    }

    fn language(&self) -> Option<Language> {
        match self.facts.provider.as_str() {
            "python" => return Some(Language::Python),
            "node" | "deno" | "bun" => return Some(Language::Script),
            "go" => return Some(Language::Go),
            "rust" => return Some(Language::Rust),
            _ => {}
        }
        // Nothing builds it: the language of most files.
        let mut counts =
            [Language::Python, Language::Script, Language::Go, Language::Rust].map(|language| (0, language));
        for language in self.tree.names().filter(|name| is_of_app(name)).filter_map(Language::of) {
            let of_it = counts.iter_mut().filter(|(_, known)| *known == language);
            of_it.for_each(|(count, _)| *count += 1);
        }
        counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .max_by_key(|(count, _)| *count)
            .map(|(_, language)| language)
    }

    fn unit(&self, path: &str, language: Language) -> Option<Unit> {
        let mut code = Code::new(path.to_owned(), self.tree.read(path)?, language);
        if language == Language::Rust {
            let tests = (0..code.tokens.len()).find(|at| {
                code.word(*at) == "cfg" && code.word(at + 2) == "test" && code.word(at + 5) == "mod"
            });
            code.tokens.truncate(tests.unwrap_or(usize::MAX));
        }
        let statements = match language {
            Language::Python => python::statements(&code),
            Language::Script | Language::Go | Language::Rust => Vec::new(),
        };
        let reads = reads(&code);
        Some(Unit { code, statements, reads })
    }

    /// Finds the files that the start command names.
    fn entries(&mut self, language: Language) -> Vec<String> {
        let mut entries = Vec::new();
        for ask in &self.asks {
            let bases = ask.places.iter().filter_map(|place| join(&ask.folder, place));
            let bases: Vec<String> =
                bases.chain([ask.folder.clone(), join(&ask.folder, "src").unwrap_or_default()]).collect();
            let modules =
                ask.target.iter().chain(&ask.module).map(|target| target.split(':').next().unwrap_or(target));
            for module in modules {
                let file = bases.iter().find_map(|base| self.module(base, module));
                if ask.target.is_none() {
                    let main = bases.iter().find_map(|base| self.module(base, &format!("{module}.__main__")));
                    self.scripts.extend(file.clone().into_iter().chain(main.clone()));
                    entries.extend(main);
                }
                entries.extend(file);
            }
            let file = ask.file.clone().or_else(|| match language {
                Language::Script => self.script_of(ask),
                Language::Python | Language::Go | Language::Rust => None,
            });
            let file = file.and_then(|file| join(&ask.folder, &file)).filter(|file| self.tree.has(file));
            self.scripts.extend(file.clone());
            entries.extend(file);
        }
        entries.retain(|entry| Language::of(entry) == Some(language));
        entries
    }

    /// The file of `node server.js`, read from the command's own words.
    fn script_of(&self, ask: &Ask) -> Option<String> {
        if !["node", "bun", "tsx", "ts-node", "deno"].contains(&ask.program.as_str()) {
            return None;
        }
        let words = self.command.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
        let mut files =
            words.filter(|word| Language::of(word) == Some(Language::Script) && !word.starts_with('-'));
        files.find(|word| join(&ask.folder, word).is_some_and(|path| self.tree.has(&path))).map(str::to_owned)
    }

    /// Finds the file of a Python module below a folder.
    fn module(&self, base: &str, module: &str) -> Option<String> {
        if module.is_empty() {
            return None;
        }
        let path = join(base, &module.replace('.', "/"))?;
        [format!("{path}.py"), format!("{path}/__init__.py")].into_iter().find(|file| self.tree.has(file))
    }

    /// Finds the files of the source that a unit loads.
    fn leads_to(&self, unit: &Unit) -> Vec<String> {
        let folder = unit.code.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        match unit.code.language {
            Language::Python => self.python_imports(unit, folder),
            Language::Script => {
                let texts = (0..unit.code.tokens.len()).filter_map(|at| unit.code.quoted(at));
                let own = texts.filter(|text| text.starts_with("./") || text.starts_with("../"));
                own.filter_map(|text| self.script(&join(folder, text)?)).collect()
            }
            Language::Go | Language::Rust => Vec::new(),
        }
    }

    fn script(&self, path: &str) -> Option<String> {
        const ENDS: [&str; 9] =
            ["", ".ts", ".js", ".mjs", ".cjs", ".mts", "/index.ts", "/index.js", "/index.mjs"];
        // `./a.js` in TypeScript is the file `a.ts`.
        let bare = path.strip_suffix(".js").unwrap_or(path);
        let found = ENDS.iter().flat_map(|end| [format!("{path}{end}"), format!("{bare}{end}")]);
        found.into_iter().find(|file| self.tree.has(file) && Language::of(file) == Some(Language::Script))
    }

    fn python_imports(&self, unit: &Unit, folder: &str) -> Vec<String> {
        let mut bases: Vec<String> = self.asks.iter().map(|ask| ask.folder.clone()).collect();
        bases.extend(
            self.asks.iter().flat_map(|ask| ask.places.iter().filter_map(|place| join(&ask.folder, place))),
        );
        bases.extend([String::new(), "src".to_owned(), folder.to_owned()]);
        bases.dedup();
        let mut found = Vec::new();
        let mut add = |bases: &[String], module: &str, names: &[String]| {
            for base in bases {
                let file = self.module(base, module);
                let below = names.iter().filter_map(|name| self.module(base, &format!("{module}.{name}")));
                let mut files: Vec<String> = below.chain(file).collect();
                if files.is_empty() {
                    continue;
                }
                // Every package on the way is loaded, too.
                let parts: Vec<&str> = module.split('.').collect();
                files.extend(
                    (1..parts.len()).filter_map(|count| self.module(base, &parts[..count].join("."))),
                );
                found.append(&mut files);
                return;
            }
        };
        for import in python::imports(&unit.code, &unit.statements) {
            if import.ups == 0 {
                add(&bases, &import.module, &import.names);
                continue;
            }
            let Some(base) = join(folder, &"../".repeat(import.ups - 1)) else { continue };
            if import.module.is_empty() {
                for name in &import.names {
                    add(std::slice::from_ref(&base), name, &[]);
                }
            } else {
                add(&[base], &import.module, &import.names);
            }
        }
        // Django's settings, and whatever else names modules in texts: `"config.settings"`, `"app.main:app"`.
        for at in 0..unit.code.tokens.len() {
            let Some(text) = unit.code.quoted(at) else { continue };
            let module = text.split(':').next().unwrap_or(text);
            let is_dotted = module.contains('.') || text.contains(':');
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            if is_dotted
                && module.len() < 100
                && module.chars().all(is_name)
                && unit.code.tokens[at].kind == Kind::Text
            {
                add(&bases, module, &[]);
                if let Some((package, _)) = module.rsplit_once('.') {
                    add(&bases, package, &[]);
                }
            }
        }
        found
    }
}

/// Follows `npm start` and `npm run x` to the command behind it.
fn by_script(tree: &Tree, command: &str) -> String {
    /// Most scripts that call another.
    const SCRIPTS_MAX: usize = 4;
    let mut command = command.to_owned();
    for _ in 0..SCRIPTS_MAX {
        let words: Vec<&str> = command.split_whitespace().collect();
        let name = match words[..] {
            ["npm" | "yarn" | "pnpm" | "bun", "run", name, ..] => name,
            ["npm" | "yarn" | "pnpm", name, ..] if !name.starts_with('-') => name,
            _ => break,
        };
        let package =
            tree.read("package.json").and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let script = package.as_ref().and_then(|package| package["scripts"][name].as_str());
        let Some(script) = script else { break };
        command = script.to_owned();
    }
    command
}
