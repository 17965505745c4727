//! The Ruby provider: gems by Bundler; Rails, Rack applications, and scripts that serve themselves.

use std::fs;
use std::path::Path;

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::range::Range;
use crate::steps::{Install, RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Asks, Tool};

const GEMFILE: &str = "Gemfile";
const LOCK: &str = "Gemfile.lock";
/// Where gems are, seen from the app.
const GEMS: &str = "vendor/bundle";

/// Servers of Rack applications, and how each is started.
const SERVERS: [(&str, &str); 4] = [
    ("puma", "bundle exec puma -b tcp://0.0.0.0:$PORT"),
    ("falcon", "bundle exec falcon serve --bind http://0.0.0.0:$PORT"),
    ("unicorn", "bundle exec unicorn --host 0.0.0.0 --port $PORT"),
    ("thin", "bundle exec thin start --address 0.0.0.0 --port $PORT"),
];

/// What the files say about gems.
struct Gems {
    gemfile: String,
    lock: Option<String>,
}

impl Gems {
    /// Returns whether a gem will be there: by the lock, which has also what others bring, else by the list.
    fn has(&self, name: &str) -> bool {
        match &self.lock {
            Some(lock) => lock.lines().any(|line| {
                line.strip_prefix("    ").is_some_and(|line| line.split(' ').next() == Some(name))
            }),
            None => {
                let quoted = [format!("gem \"{name}\""), format!("gem '{name}'")];
                self.statements().any(|(_, line)| quoted.iter().any(|gem| line.starts_with(gem)))
            }
        }
    }

    /// Returns whether a gem of the source itself is installed, which needs more of it than the list.
    fn local(&self) -> bool {
        self.statements().any(|(_, line)| {
            line.starts_with("gemspec") || line.contains("path:") || line.starts_with("path ")
        })
    }

    fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.gemfile.lines()).map(|(number, line)| (number, line.trim()))
    }
}

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let Some(gemfile) = text::find(look.source, GEMFILE)? else { return Ok(Found::No) };
    let gems = Gems { gemfile, lock: text::find(look.source, LOCK)? };
    let asks = asked(look.source, &gems)?;
    let ruby = toolchain::choose(look.programs, Tool::Ruby, asks.as_ref())?;
    let bundler = toolchain::choose_beside(look.programs, Tool::Bundler, &ruby)?;
    if draft.find(Key::StartCommand).is_none() {
        let (command, place) = start(look.source, &gems)?;
        give_start(draft, command, place);
    }
    if gems.lock.is_none() {
        let message = "there is no Gemfile.lock: every build takes the newest gems that fit; commit one (`bundle lock`)";
        draft.warn(GEMFILE, None, message);
    }
    let installed = "bundle install --jobs 4 --retry 2".to_owned();
    let build = draft.text(Key::BuildCommand).or_else(|| assets(&gems));
    let local = gems.local();
    let (install, build) = match local {
        // Gems of the source are there only with the source.
        true => (None, Some(build.map_or(installed.clone(), |build| format!("{installed}\n{build}")))),
        false => {
            let reads = reads(look.source);
            (Some(Install { reads, command: installed, makes: GEMS.to_owned() }), build)
        }
    };
    let settings = vec![version_setting("ruby", &ruby, asks.as_ref())];
    let list = if gems.lock.is_some() { LOCK } else { GEMFILE };
    let summary = format!("ruby {} ({}), {list}, bundler", ruby.version, place_of(asks.as_ref()));
    let own = pairs([("BUNDLE_PATH", "/app/vendor/bundle"), ("BUNDLE_WITHOUT", "development:test")]);
    let mut build_env = own.clone();
    build_env.extend(pairs([("BUNDLE_USER_HOME", "{cache}"), ("BUNDLE_GLOBAL_GEM_CACHE", "true")]));
    if gems.lock.is_some() {
        build_env.extend(pairs([("BUNDLE_FROZEN", "true")]));
    }
    let mut env = own;
    env.extend(pairs([
        ("RACK_ENV", "production"),
        ("RAILS_ENV", "production"),
        ("RAILS_LOG_TO_STDOUT", "1"),
        ("RAILS_SERVE_STATIC_FILES", "1"),
        ("LANG", "C.UTF-8"),
    ]));
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: vec![ruby, bundler],
        at_run: true,
        install,
        build,
        after: None,
        drop: vec!["tmp/cache".to_owned()],
        secrets: Vec::new(),
        build_env,
        env,
        path: Vec::new(),
    };
    Decided::of("ruby", summary, &recipe, settings)
}

/// Assets are made with the build's own secret: that of the service is none of its business.
fn assets(gems: &Gems) -> Option<String> {
    let made = gems.has("rails") && (gems.has("sprockets-rails") || gems.has("propshaft"));
    made.then(|| {
        "RAILS_ENV=production SECRET_KEY_BASE_DUMMY=1 SECRET_KEY_BASE=build bundle exec rails assets:precompile"
            .to_owned()
    })
}

fn start(source: &Path, gems: &Gems) -> Result<(String, String), PortError> {
    let has_file = |path: &str| source.join(path).is_file();
    if gems.has("rails") && has_file("config/application.rb") {
        let command = "bundle exec rails server --binding 0.0.0.0 --port $PORT";
        return Ok((command.to_owned(), "config/application.rb".to_owned()));
    }
    if has_file("config.ru") {
        if let Some((_, command)) = SERVERS.into_iter().find(|(gem, _)| gems.has(gem)) {
            return Ok((command.to_owned(), "config.ru".to_owned()));
        }
        if gems.has("webrick") || gems.has("rackup") {
            let command = "bundle exec rackup --host 0.0.0.0 --port $PORT";
            return Ok((command.to_owned(), "config.ru".to_owned()));
        }
        return Err(PortError::new("config.ru is there, but no gem that serves it: puma is missing")
            .hint("add a line `gem \"puma\"` to Gemfile and run `bundle lock`"));
    }
    let script = ["app.rb", "main.rb", "server.rb"].into_iter().find(|file| has_file(file));
    let Some(script) = script else {
        return Err(PortError::new(
            "found no way to start this source: no Rails (config/application.rb), no config.ru, and none of app.rb, \
             main.rb, server.rb",
        )
        .hint("say it: trackbed up --start 'bundle exec puma -b tcp://0.0.0.0:$PORT'"));
    };
    let arguments = if gems.has("sinatra") { " -o 0.0.0.0 -p $PORT" } else { "" };
    Ok((format!("bundle exec ruby {script}{arguments}"), script.to_owned()))
}

/// What the source asks of Ruby, the most explicit first.
fn asked(source: &Path, gems: &Gems) -> Result<Option<Asks>, PortError> {
    let pinned = |text: &str, place: String| {
        let text = text.trim().trim_start_matches("ruby-").to_owned();
        (!text.is_empty()).then(|| Asks { range: Range::parse_pessimistic(&text), text, place })
    };
    let named = gems.statements().find_map(|(number, line)| {
        let text = line.strip_prefix("ruby ").or_else(|| line.strip_prefix("ruby("))?;
        let quoted: Vec<&str> = text.split(['"', '\'']).skip(1).step_by(2).collect();
        let is_file = text.trim_start().starts_with("file:");
        (!is_file && !quoted.is_empty()).then(|| pinned(&quoted.join(", "), format!("{GEMFILE}:{number}")))?
    });
    if named.is_some() {
        return Ok(named);
    }
    if let Some(text) = text::find(source, ".ruby-version")? {
        return Ok(pinned(text.lines().next().unwrap_or_default(), ".ruby-version:1".to_owned()));
    }
    toolchain::tool_versions(source, &["ruby"])
}

/// The files that an install reads, gems that lie in the source among them.
fn reads(source: &Path) -> Vec<String> {
    let mut files: Vec<String> = [GEMFILE, LOCK, ".ruby-version", ".tool-versions", ".bundle/config"]
        .into_iter()
        .filter(|file| source.join(file).is_file())
        .map(str::to_owned)
        .collect();
    let cached = fs::read_dir(source.join("vendor/cache")).into_iter().flatten().flatten();
    let mut cached: Vec<String> = cached
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".gem"))
        .map(|name| format!("vendor/cache/{name}"))
        .collect();
    cached.sort();
    files.extend(cached);
    files
}
