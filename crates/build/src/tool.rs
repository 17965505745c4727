//! The tools that build and run sources: what each is called, how it says its version, where it lies, and how it is put on
//! a box.

use serde::{Deserialize, Serialize};

/// A program that builds or runs sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tool {
    /// Node.js.
    Node,
    /// Its package managers.
    Npm,
    /// pnpm.
    Pnpm,
    /// Yarn.
    Yarn,
    /// Bun, which is runtime and package manager.
    Bun,
    /// Deno.
    Deno,
    /// Go.
    Go,
    /// Cargo, with the compiler beside it.
    Cargo,
    /// Ruby.
    Ruby,
    /// Its package manager.
    Bundler,
    /// PHP for the command line.
    Php,
    /// Its package manager.
    Composer,
    /// Java, with its compiler.
    Java,
    /// Maven.
    Maven,
    /// Gradle.
    Gradle,
    /// Elixir, with Erlang.
    Elixir,
}

/// What is known of a tool.
pub(crate) struct Facts {
    /// The name of the program.
    pub(crate) program: &'static str,
    /// What people call it.
    pub(crate) title: &'static str,
    /// How it is put on a box.
    pub(crate) remedy: &'static str,
    /// What it is asked to tell its version.
    pub(crate) question: &'static [&'static str],
    /// Folders beside those of `PATH`, those of version managers among them; `*` stands for any one name, `~` for a home,
    /// `$NAME` for what a variable of the box says.
    pub(crate) places: &'static [&'static str],
    /// Settings of the system's that it does not work without: beginnings of names in `/etc`.
    pub(crate) settings: &'static [&'static str],
    /// What mise calls it; none for what comes with another tool, or what it would compile, for which a box has no means.
    pub(crate) mise: Option<&'static str>,
}

const VERSION: &[&str] = &["--version"];

const NODE: Facts = Facts {
    program: "node",
    title: "Node.js",
    remedy: "install it on the box: `apt install nodejs npm`, or a newer one from nodejs.org into /usr/local",
    question: VERSION,
    places: &[
        "~/.nvm/versions/node/*/bin",
        "~/.asdf/installs/nodejs/*/bin",
        "~/.local/share/mise/installs/node/*/bin",
    ],
    settings: &[],
    mise: Some("node"),
};
const NPM: Facts = Facts { program: "npm", title: "npm", mise: None, ..NODE };
const PNPM: Facts = Facts {
    program: "pnpm",
    title: "pnpm",
    remedy: "install it on the box: `npm install --global pnpm`",
    mise: None,
    ..NODE
};
const YARN: Facts = Facts {
    program: "yarn",
    title: "Yarn",
    remedy: "install it on the box: `npm install --global yarn`",
    mise: None,
    ..NODE
};
const BUN: Facts = Facts {
    program: "bun",
    title: "Bun",
    remedy: "install it on the box: `npm install --global bun`",
    places: &["~/.bun/bin", "~/.local/share/mise/installs/bun/*/bin"],
    mise: Some("bun"),
    ..NODE
};
const DENO: Facts = Facts {
    program: "deno",
    title: "Deno",
    remedy: "install it on the box: `npm install --global deno`, or from deno.com into /usr/local/bin",
    places: &["~/.deno/bin", "~/.local/share/mise/installs/deno/*/bin"],
    mise: Some("deno"),
    ..NODE
};
const GO: Facts = Facts {
    program: "go",
    title: "Go",
    remedy: "install it on the box: `apt install golang`, or a newer one from go.dev/dl into /usr/local/go",
    question: &["version"],
    places: &[
        "/usr/local/go/bin",
        "/usr/lib/go/bin",
        "~/.asdf/installs/golang/*/go/bin",
        "~/.local/share/mise/installs/go/*/bin",
    ],
    mise: Some("go"),
    ..NODE
};
const CARGO: Facts = Facts {
    program: "cargo",
    title: "Rust",
    remedy: "install it on the box: `apt install cargo`, or by rustup.rs",
    // Not `.cargo/bin`: what lies there only points to one of these.
    places: &["~/.rustup/toolchains/*/bin", "$RUSTUP_HOME/toolchains/*/bin"],
    mise: None,
    ..NODE
};
const RUBY: Facts = Facts {
    program: "ruby",
    title: "Ruby",
    remedy: "install it on the box: `apt install ruby-dev bundler`, or another version by rbenv or mise",
    places: &[
        "~/.rbenv/versions/*/bin",
        "~/.asdf/installs/ruby/*/bin",
        "~/.local/share/mise/installs/ruby/*/bin",
    ],
    ..CARGO
};
const BUNDLER: Facts = Facts {
    program: "bundle",
    title: "Bundler",
    remedy: "install it on the box: `apt install bundler`, or `gem install bundler`",
    ..RUBY
};
const PHP: Facts = Facts {
    program: "php",
    title: "PHP",
    remedy: "install it on the box: `apt install php-cli`",
    places: &["~/.asdf/installs/php/*/bin", "~/.local/share/mise/installs/php/*/bin"],
    settings: &["php"],
    ..CARGO
};
const COMPOSER: Facts = Facts {
    program: "composer",
    title: "Composer",
    remedy: "install it on the box: `apt install composer`",
    question: &["--version", "--no-ansi"],
    ..PHP
};
const JAVA: Facts = Facts {
    program: "javac",
    title: "Java",
    remedy: "install it on the box: `apt install default-jdk-headless`",
    places: &[
        "/usr/lib/jvm/*/bin",
        "~/.sdkman/candidates/java/*/bin",
        "~/.asdf/installs/java/*/bin",
        "~/.local/share/mise/installs/java/*/bin",
    ],
    settings: &["java"],
    mise: Some("java"),
    ..CARGO
};
const MAVEN: Facts = Facts {
    program: "mvn",
    title: "Maven",
    remedy: "install it on the box: `apt install maven`, or commit the wrapper (`mvn wrapper:wrapper`)",
    places: &[
        "/opt/maven/bin",
        "~/.sdkman/candidates/maven/*/bin",
        "~/.local/share/mise/installs/maven/*/*/bin",
    ],
    settings: &["maven", "java"],
    mise: Some("maven"),
    ..CARGO
};
const GRADLE: Facts = Facts {
    program: "gradle",
    title: "Gradle",
    remedy: "commit the wrapper (`gradle wrapper`), or install Gradle on the box into /opt/gradle",
    places: &[
        "/opt/gradle/bin",
        "~/.sdkman/candidates/gradle/*/bin",
        "~/.local/share/mise/installs/gradle/*/*/bin",
    ],
    settings: &["java"],
    mise: Some("gradle"),
    ..CARGO
};
const ELIXIR: Facts = Facts {
    program: "elixir",
    title: "Elixir",
    remedy: "install it on the box: `apt install elixir erlang-dev`",
    places: &["~/.asdf/installs/elixir/*/bin", "~/.local/share/mise/installs/elixir/*/bin"],
    ..CARGO
};

impl Tool {
    /// Returns what is known of it.
    pub(crate) fn facts(self) -> &'static Facts {
        match self {
            Tool::Node => &NODE,
            Tool::Npm => &NPM,
            Tool::Pnpm => &PNPM,
            Tool::Yarn => &YARN,
            Tool::Bun => &BUN,
            Tool::Deno => &DENO,
            Tool::Go => &GO,
            Tool::Cargo => &CARGO,
            Tool::Ruby => &RUBY,
            Tool::Bundler => &BUNDLER,
            Tool::Php => &PHP,
            Tool::Composer => &COMPOSER,
            Tool::Java => &JAVA,
            Tool::Maven => &MAVEN,
            Tool::Gradle => &GRADLE,
            Tool::Elixir => &ELIXIR,
        }
    }

    /// Returns the name of the program.
    pub(crate) fn program(self) -> &'static str {
        self.facts().program
    }

    /// Returns what people call it.
    pub(crate) fn title(self) -> &'static str {
        self.facts().title
    }
}
