//! Reads a start command as far as it can be read without a shell: what it runs, where, and what of the app it names.
//! What cannot be read is left out, never guessed.

use std::collections::BTreeSet;

use serde::Serialize;

/// A simple command, and what it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ask {
    /// The folder that it runs in, relative to the app.
    pub(crate) folder: String,
    /// Its program.
    pub(crate) program: String,
    /// `main:app` of a server.
    pub(crate) target: Option<String>,
    /// The attribute of a target that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
    /// The module of `python -m`.
    pub(crate) module: Option<String>,
    /// The script of an interpreter.
    pub(crate) file: Option<String>,
    /// Folders that modules are looked for in before others, relative to `folder`.
    pub(crate) places: Vec<String>,
    /// Files that may change all that.
    pub(crate) configs: Vec<String>,
}

/// A word of a command; `None` when it holds something that only a shell knows.
pub(crate) type Word = Option<String>;

const SERVERS: [&str; 6] = ["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve"];
/// Options of servers that take no value, so that what follows them may be the target.
const SWITCHES: [&str; 18] = [
    "--factory",
    "--reload",
    "--preload",
    "--proxy-headers",
    "--no-proxy-headers",
    "--use-colors",
    "--no-use-colors",
    "--access-log",
    "--no-access-log",
    "--no-server-header",
    "--no-date-header",
    "--daemon",
    "--reuse-port",
    "--call",
    "--http2",
    "--sendfile",
    "--no-sendfile",
    "-R",
];
/// Options that say where modules are.
const PLACES: [&str; 3] = ["--app-dir", "--chdir", "--pythonpath"];
/// Words of the shell after which a command can no longer be read simply.
const STRUCTURE: [&str; 12] =
    ["if", "then", "for", "while", "until", "case", "{", "!", "function", "eval", "source", "."];
/// Commands of the shell itself, and others that are always there.
const BUILTINS: [&str; 20] = [
    "export", "set", "unset", "true", "false", ":", "echo", "test", "[", "trap", "umask", "ulimit", "wait",
    "exit", "read", "printf", "kill", "command", "type", "shift",
];

/// Reads a start command.
pub(crate) fn read(command: &str) -> Vec<Ask> {
    let mut asks = Vec::new();
    let mut folder = String::new();
    for words in simple_commands(command) {
        let mut words: &[Word] = &words;
        while let [Some(first), rest @ ..] = words
            && (is_assignment(first) || matches!(first.as_str(), "exec" | "env" | "nohup"))
        {
            words = rest;
        }
        let [Some(program), arguments @ ..] = words else { break };
        match (program.as_str(), arguments) {
            ("cd", [Some(to)]) if !to.starts_with(['/', '~', '-']) => {
                folder = if folder.is_empty() { to.clone() } else { format!("{folder}/{to}") };
            }
            ("cd", _) => break,
            (word, _) if STRUCTURE.contains(&word) || word.starts_with('-') => break,
            (word, _) if BUILTINS.contains(&word) => {}
            _ => asks.push(ask(&folder, program, arguments)),
        }
    }
    asks
}

fn ask(folder: &str, program: &str, arguments: &[Word]) -> Ask {
    let mut ask = Ask { folder: folder.to_owned(), program: program.to_owned(), ..Ask::default() };
    let name = program.rsplit('/').next().unwrap_or(program);
    if SERVERS.contains(&name) {
        serve(&mut ask, name, arguments);
    } else if name
        .strip_prefix("python")
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    {
        interpret(&mut ask, arguments);
    } else if matches!(name, "sh" | "bash" | "dash")
        && let [Some(file), ..] = arguments
        && !file.starts_with('-')
    {
        ask.file = Some(file.clone());
    }
    ask
}

fn interpret(ask: &mut Ask, mut arguments: &[Word]) {
    while let [Some(option), rest @ ..] = arguments
        && matches!(option.as_str(), "-u" | "-B" | "-O" | "-OO" | "-E" | "-s" | "-v")
    {
        arguments = rest;
    }
    match arguments {
        [Some(option), Some(module), rest @ ..] if option == "-m" => {
            ask.module = Some(module.clone());
            if SERVERS.contains(&module.as_str()) {
                serve(ask, module, rest);
            }
        }
        [Some(file), ..] if !file.starts_with('-') && !file.starts_with('/') => ask.file = Some(file.clone()),
        _ => {}
    }
}

/// Finds what a server serves: the word of the shape `module:name` that is no option's value.
fn serve(ask: &mut Ask, server: &str, arguments: &[Word]) {
    let mut found = Vec::new();
    let mut before: Option<&str> = None;
    for word in arguments {
        let Some(word) = word else {
            before = None;
            continue;
        };
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (Some(option), Some(value)),
            _ => (before.filter(|before| before.starts_with('-')), Some(word.as_str())),
        };
        if let (Some(option), Some(value)) = (option, value) {
            if PLACES.contains(&option) {
                ask.places.extend(value.split(',').map(str::to_owned));
            }
            if matches!(option, "-c" | "--config") && server == "gunicorn" {
                let file = value.strip_prefix("file:").unwrap_or(value);
                ask.configs.push(
                    file.strip_prefix("python:")
                        .map_or(file.to_owned(), |module| format!("{}.py", module.replace('.', "/"))),
                );
            }
        }
        let is_value = before.is_some_and(|before| {
            before.starts_with('-') && !before.contains('=') && !SWITCHES.contains(&before)
        });
        let bare = server == "gunicorn" && !word.contains(':') && is_dotted(word);
        if !is_value && (is_target(word) || bare) {
            found.push(word.clone());
        }
        before = Some(word);
    }
    if server == "gunicorn" {
        ask.configs.push("gunicorn.conf.py".to_owned());
        ask.default = Some("application".to_owned());
    }
    // Two that could be meant are one too many to say that either is missing.
    if let [target] = &found[..] {
        ask.target = Some(target.clone());
    }
}

fn is_target(word: &str) -> bool {
    let Some((module, call)) = word.split_once(':') else { return false };
    is_dotted(module)
        && call.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !call.contains(['/', ':'])
}

fn is_dotted(word: &str) -> bool {
    word.split('.').all(|part| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| is_dotted(name) && !name.contains('.'))
}

/// Splits a command at `&&`, `;` and line ends. Stops before anything else that a shell would have to decide.
pub(crate) fn simple_commands(command: &str) -> Vec<Vec<Word>> {
    let mut commands = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut rest = command.chars().peekable();
    let end_word = |word: &mut Option<Word>, words: &mut Vec<Word>| words.extend(word.take());
    while let Some(c) = rest.next() {
        let add = |word: &mut Option<Word>, c: char| {
            if let Some(text) = word.get_or_insert_with(|| Some(String::new())) {
                text.push(c);
            }
        };
        match c {
            ' ' | '\t' => end_word(&mut word, &mut words),
            '\'' => {
                word.get_or_insert_with(|| Some(String::new()));
                for inner in rest.by_ref().take_while(|c| *c != '\'') {
                    add(&mut word, inner);
                }
            }
            '"' => {
                word.get_or_insert_with(|| Some(String::new()));
                while let Some(inner) = rest.next().filter(|c| *c != '"') {
                    match inner {
                        '$' | '`' => word = Some(None),
                        '\\' => rest.next().into_iter().for_each(|c| add(&mut word, c)),
                        inner => add(&mut word, inner),
                    }
                }
            }
            '\\' => match rest.next() {
                Some('\n') | None => {}
                Some(c) => add(&mut word, c),
            },
            '$' if !matches!(rest.peek(), Some('(')) => word = Some(None),
            '*' | '?' | '~' if word.is_none() => word = Some(None),
            '\n' | ';' => {
                end_word(&mut word, &mut words);
                commands.push(std::mem::take(&mut words));
            }
            '&' if rest.peek() == Some(&'&') => {
                rest.next();
                end_word(&mut word, &mut words);
                commands.push(std::mem::take(&mut words));
            }
            '#' if word.is_none() => return finish(commands, words),
            // What is before still runs; how it ends is not ours to tell.
            '&' | '|' | '(' | ')' | '<' | '>' | '`' | '$' => {
                end_word(&mut word, &mut words);
                let decides = c == '|' && rest.peek() == Some(&'|');
                return if decides || matches!(c, '(' | ')' | '`' | '$') {
                    finish(commands, Vec::new())
                } else {
                    finish(commands, words)
                };
            }
            // A variable's name goes on in a word that is the shell's already.
            c => add(&mut word, c),
        }
    }
    end_word(&mut word, &mut words);
    finish(commands, words)
}

fn finish(mut commands: Vec<Vec<Word>>, words: Vec<Word>) -> Vec<Vec<Word>> {
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    commands
}

/// The variables that a command uses: those it can do without, and those it says it cannot (`${NAME:?}`).
pub(crate) fn variables(command: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut used, mut required) = (BTreeSet::new(), BTreeSet::new());
    let mut is_quoted = false;
    let mut rest = command;
    while let Some(at) = rest.find(['$', '\'', '\\']) {
        let (sign, after) = rest[at..].split_at(1);
        rest = after;
        match sign {
            "'" => is_quoted = !is_quoted,
            "\\" => rest = after.get(1..).unwrap_or_default(),
            _ if is_quoted => {}
            _ => {
                let braced = after.strip_prefix('{');
                let text = braced.unwrap_or(after);
                let length =
                    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
                let (name, tail) = text.split_at(length);
                if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                    continue;
                }
                let is_set_here =
                    command.contains(&format!("{name}=")) || command.contains(&format!("for {name} "));
                match (braced.is_some(), tail) {
                    _ if is_set_here => {}
                    (true, tail) if tail.starts_with(":?") || tail.starts_with('?') => {
                        required.insert(name.to_owned());
                    }
                    (true, tail) if !tail.starts_with('}') => {}
                    _ => {
                        used.insert(name.to_owned());
                    }
                }
            }
        }
    }
    (used, required)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(command: &str) -> Vec<String> {
        read(command)
            .into_iter()
            .map(|ask| {
                let target = ask.target.or(ask.module).or(ask.file).unwrap_or_default();
                format!("{}|{}|{target}", ask.folder, ask.program)
            })
            .collect()
    }

    #[test]
    fn servers_and_what_they_serve_are_found() {
        for (command, expected) in [
            (
                "gunicorn main:app --workers 4 --worker-class uvicorn.workers.UvicornWorker --bind 0.0.0.0:$PORT",
                vec!["|gunicorn|main:app"],
            ),
            (
                "uvicorn --factory app.web:create_app --port ${PORT:-8000}",
                vec!["|uvicorn|app.web:create_app"],
            ),
            ("exec gunicorn -k gthread config.wsgi", vec!["|gunicorn|config.wsgi"]),
            ("gunicorn 'app:create_app()' -b :8000", vec!["|gunicorn|app:create_app()"]),
            (
                "cd backend && python manage.py migrate --noinput && gunicorn shop.wsgi:application",
                vec!["backend|python|manage.py", "backend|gunicorn|shop.wsgi:application"],
            ),
            ("DEBUG=1 python3.12 -u -m uvicorn main:app", vec!["|python3.12|main:app"]),
            ("python -m flask run", vec!["|python|flask"]),
            ("sh start.sh", vec!["|sh|start.sh"]),
            ("gunicorn -c python:settings main:app", vec!["|gunicorn|main:app"]),
            ("hypercorn main:app | tee log", vec!["|hypercorn|main:app"]),
        ] {
            assert_eq!(targets(command), expected, "{command}");
        }
    }

    #[test]
    fn what_only_a_shell_knows_is_left_out() {
        for command in [
            "uvicorn $APP_MODULE",
            "uvicorn \"$APP_MODULE\" --port 1",
            "gunicorn --logger-class my.logs:Logger $TARGET",
            "gunicorn one:app two:app",
        ] {
            assert!(read(command).iter().all(|ask| ask.target.is_none()), "{command}: {:?}", read(command));
        }
        for command in [
            "$(which python) app.py",
            "if true; then uvicorn a:b; fi",
            "a || b",
            "(cd x; y)",
            "cd $X && y",
            "${CMD}",
            "eval x",
        ] {
            assert_eq!(read(command), [], "{command}");
        }
        assert_eq!(targets("export A=1; test -e x && { y; }; uvicorn a:b"), Vec::<String>::new());
        let asks = read("uvicorn --app-dir=src main:app");
        assert_eq!(
            (asks[0].places.clone(), asks[0].target.clone()),
            (vec!["src".to_owned()], Some("main:app".to_owned()))
        );
    }

    #[test]
    fn variables_are_told_apart_by_what_they_say() {
        let (used, required) = variables("X=1 a $PORT ${A:-1} ${B:?no} '$C' \\$D $X ${E} $$ $1 \"$F\"");
        assert_eq!(used.into_iter().collect::<Vec<_>>(), ["E", "F", "PORT"]);
        assert_eq!(required.into_iter().collect::<Vec<_>>(), ["B"]);
    }
}
