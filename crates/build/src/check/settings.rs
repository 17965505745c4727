//! Classes of pydantic-settings: which variables fill their fields, and which of those must be set.

use trackbed_core::finding::Finding;

use crate::check::app::{App, Unit};
use crate::check::code::{Call, Code};
use crate::check::python::{Statement, block, statement_of};
use crate::check::variables::missing;

/// A field of a settings class.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    file: String,
    statement: usize,
    /// The variables that can fill it; the first is the usual one. Never empty.
    pub(crate) variables: Vec<String>,
    is_required: bool,
    /// What separates parts of the names of variables that fill the inside of a field.
    delimiter: Option<String>,
    line: u32,
    shown: String,
}

impl Field {
    /// Returns whether a token stands in the field's definition.
    pub(crate) fn holds(&self, unit: &Unit, at: usize) -> bool {
        self.file == unit.code.path && statement_of(&unit.statements, at) == Some(self.statement)
    }
}

/// A class that reads its fields from the environment.
struct Class<'a> {
    unit: &'a Unit,
    statement: usize,
    bases: Vec<&'a str>,
    name: &'a str,
}

/// Looks for required fields that nothing fills.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let fields = fields(app);
    let has_default = |field: &Field| {
        fields.iter().any(|other| !other.is_required && other.variables[0] == field.variables[0])
    };
    for field in fields.iter().filter(|field| field.is_required && !has_default(field)) {
        let fills = |name: &String| {
            let inside =
                field.delimiter.as_ref().map(|delimiter| format!("{name}{delimiter}").to_ascii_uppercase());
            app.facts.is_set(name)
                || app.facts.variables.keys().any(|set| {
                    inside.as_ref().is_some_and(|inside| set.to_ascii_uppercase().starts_with(inside))
                })
        };
        if !field.variables.iter().any(fills) {
            let what = format!("`{}` is filled from {}", field.shown, field.variables[0]);
            found.push(missing(app, &field.file, field.line, &field.variables[0], what, true));
        }
    }
}

/// Finds every field of every settings class that somebody makes.
pub(crate) fn fields(app: &App<'_>) -> Vec<Field> {
    let classes: Vec<Class<'_>> = app.units.iter().flat_map(classes_of).collect();
    let mut known = vec!["BaseSettings"];
    while let Some(class) = classes
        .iter()
        .find(|class| !known.contains(&class.name) && class.bases.iter().any(|base| known.contains(base)))
    {
        known.push(class.name);
    }
    let made = made(app, &known);
    // A class counts when it is made itself, or a class below it is.
    let is_made = |name: &str| {
        let mut below = vec![name];
        while let Some(class) = classes
            .iter()
            .find(|class| !below.contains(&class.name) && class.bases.iter().any(|base| below.contains(base)))
        {
            below.push(class.name);
        }
        below.into_iter().any(|name| made.iter().any(|call| call.name() == name))
    };
    let settings = classes.iter().filter(|class| class.bases.iter().any(|base| known.contains(base)));
    settings.filter(|class| is_made(class.name)).flat_map(|class| fields_of(class, &made)).collect()
}

/// Every place where one of the classes is made.
fn made(app: &App<'_>, names: &[&str]) -> Vec<Call> {
    app.units.iter().flat_map(|unit| unit.code.calls(names)).collect()
}

fn classes_of(unit: &Unit) -> Vec<Class<'_>> {
    let code = &unit.code;
    let headers = unit.statements.iter().enumerate();
    headers
        .filter_map(|(statement, header)| {
            let at = header.tokens.start;
            if code.word(at) != "class" || !code.is_sign(at + 2, "(") {
                return None;
            }
            let bases = code.items(at + 2).into_iter().filter(|base| base.name.is_none());
            let bases = bases.map(|base| code.word(base.value.end - 1)).collect();
            Some(Class { unit, statement, bases, name: code.word(at + 1) })
        })
        .collect()
}

fn fields_of(class: &Class<'_>, made: &[Call]) -> Vec<Field> {
    let (code, statements) = (&class.unit.code, &class.unit.statements);
    let body: Vec<&Statement> = block(statements, class.statement).collect();
    // Sources of its own, and files of which nothing is known here.
    let inside = statements[class.statement].tokens.start..body.last().map_or(0, |last| last.tokens.end);
    let has = |name: &str| inside.clone().any(|at| code.is_name(at) && code.word(at) == name);
    if [
        "settings_customise_sources",
        "customise_sources",
        "secrets_dir",
        "yaml_file",
        "toml_file",
        "json_file",
    ]
    .iter()
    .any(|name| has(name))
    {
        return Vec::new();
    }
    let option = |name: &str| {
        let mut places = inside.clone().filter(|at| code.word(*at) == name && code.is_sign(at + 1, "="));
        places.find_map(|at| code.quoted(at + 2).map(str::to_owned))
    };
    let prefix = option("env_prefix").unwrap_or_default();
    let delimiter = option("env_nested_delimiter");
    let is_new = code.imports("pydantic_settings");
    let given: Vec<&str> = made
        .iter()
        .filter(|call| call.name() == class.name)
        .flat_map(|call| call.arguments.iter().filter_map(|argument| argument.name.as_deref()))
        .collect();
    let unpacked = made
        .iter()
        .filter(|call| call.name() == class.name)
        .any(|call| call.arguments.iter().any(|argument| argument.name.is_none()));
    body.into_iter()
        .filter_map(|statement| {
            let at = statement.tokens.start;
            let name = code.word(at);
            if !code.is_name(at)
                || !code.is_sign(at + 1, ":")
                || name.starts_with('_')
                || name == "model_config"
            {
                return None;
            }
            let end = statement.tokens.end;
            let equals =
                (at + 2..end).find(|token| code.is_sign(*token, "=") && depth(code, at + 2, *token) == 0);
            let kind = at + 2..equals.unwrap_or(end);
            let says = |word: &str| kind.clone().any(|token| code.word(token) == word);
            if says("ClassVar") {
                return None;
            }
            let field =
                (at + 2..end).filter_map(|token| code.call(token)).find(|call| call.name() == "Field");
            let has_default = match (&field, equals) {
                (Some(field), _)
                    if field.named("default").is_some() || field.named("default_factory").is_some() =>
                {
                    field.named("default").is_none_or(|default| code.word(default.value.start) != ".")
                }
                // `Annotated[str, Field(…)] = "x"`
                (Some(field), Some(equals)) if field.at < equals => true,
                (Some(field), Some(_)) => {
                    field.nth(0).is_some_and(|first| code.word(first.value.start) != ".")
                }
                (Some(_), None) | (None, None) => false,
                (None, Some(equals)) => code.word(equals + 1) != ".",
            };
            let is_optional = says("Optional") || says("None");
            let is_required = !has_default && (is_new || !is_optional) && !given.contains(&name) && !unpacked;
            let alias = field.as_ref().and_then(|field| {
                ["validation_alias", "alias", "env"].iter().find_map(|key| field.named(key))
            });
            let variables = match alias {
                Some(alias) => {
                    let texts = alias.value.clone().filter_map(|token| code.quoted(token).map(str::to_owned));
                    texts.collect::<Vec<_>>()
                }
                None => vec![format!("{prefix}{name}").to_ascii_uppercase()],
            };
            let line = code.line(at);
            (!variables.is_empty()).then(|| Field {
                file: code.path.clone(),
                statement: statement_of(statements, at).unwrap_or_default(),
                variables,
                is_required,
                delimiter: delimiter.clone(),
                line,
                shown: code.shown(line),
            })
        })
        .collect()
}

fn depth(code: &Code, from: usize, to: usize) -> i32 {
    (from..to).fold(0, |depth, at| match code.word(at) {
        "[" | "(" | "{" if !code.is_name(at) => depth + 1,
        "]" | ")" | "}" if !code.is_name(at) => depth - 1,
        _ => depth,
    })
}
