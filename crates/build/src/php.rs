//! The PHP provider: packages by Composer; Laravel, Symfony and plain PHP, served by FrankenPHP's or PHP's own server.

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::json;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::range::Range;
use crate::steps::{Install, RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Asks, Tool};

const MANIFEST: &str = "composer.json";
const LOCK: &str = "composer.lock";
/// Decides what PHP's own server gives away: without it `.env` and `vendor` would be among it.
const ROUTER: &str = ".trackbed/router.php";
const ROUTER_TEXT: &str = r#"<?php
$path = rawurldecode(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/');
if (preg_match('#(^|/)\.(?!well-known(/|$))|^/vendor/|^/composer\.(json|lock)$#', $path)) {
    http_response_code(404);
    return true;
}
$file = realpath($_SERVER['DOCUMENT_ROOT'] . $path);
$below = $file && strpos($file . '/', $_SERVER['DOCUMENT_ROOT'] . '/') === 0;
if ($below && (is_file($file) || is_file($file . '/index.php') || is_file($file . '/index.html'))) {
    return false;
}
$_SERVER['SCRIPT_NAME'] = '/index.php';
$_SERVER['SCRIPT_FILENAME'] = $_SERVER['DOCUMENT_ROOT'] . '/index.php';
require $_SERVER['DOCUMENT_ROOT'] . '/index.php';
"#;

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let manifest = text::find(look.source, MANIFEST)?;
    if manifest.is_none() && !look.source.join("index.php").is_file() {
        return Ok(Found::No);
    }
    let tree = manifest.map(|text| json::parse(MANIFEST, &text)).transpose()?;
    let tree = tree.as_ref();
    let asks = asked(look.source, tree)?;
    let php = toolchain::choose(look.programs, Tool::Php, asks.as_ref())?;
    let mut programs = vec![php.clone()];
    let requires = tree.and_then(|tree| tree.get("require"));
    // Extensions and PHP itself are the box's.
    let packages =
        requires.map(Node::members).unwrap_or_default().iter().any(|member| member.key.contains('/'));
    let own_autoload = tree.is_some_and(|tree| tree.get("autoload").is_some());
    if packages || own_autoload {
        programs.push(toolchain::choose_beside(look.programs, Tool::Composer, &php)?);
    }
    let served = give_own_start(look.source, tree, draft)?;
    let install = packages.then(|| Install {
        reads: [MANIFEST, LOCK].into_iter().filter(|file| look.source.join(file).is_file()).map(str::to_owned).collect(),
        // The scripts of packages need the source; the build runs them.
        command: "composer install --no-dev --no-interaction --no-progress --prefer-dist --no-scripts --no-autoloader"
            .to_owned(),
        makes: "vendor".to_owned(),
    });
    if packages && !look.source.join(LOCK).is_file() {
        let message = "there is no composer.lock: every build takes the newest versions that fit; commit one";
        draft.warn(MANIFEST, None, message);
    }
    if look.source.join("package.json").is_file() && draft.find(Key::BuildCommand).is_none() {
        let message = "package.json is there too, and its scripts are not run: commit what they make, or set \
                       build.buildCommand";
        draft.warn("package.json", None, message);
    }
    let mut steps: Vec<String> = Vec::new();
    if packages || own_autoload {
        steps.push("composer dump-autoload --no-dev --optimize --no-interaction".to_owned());
    }
    steps.extend(draft.text(Key::BuildCommand));
    let settings = vec![version_setting("php", &php, asks.as_ref())];
    let from = match (packages, look.source.join(LOCK).is_file()) {
        (true, true) => format!("{LOCK}, composer"),
        (true, false) => format!("{MANIFEST}, composer"),
        (false, _) => "no dependencies".to_owned(),
    };
    let summary = format!("php {} ({}), {from}", php.version, place_of(asks.as_ref()));
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs,
        at_run: true,
        install,
        build: (!steps.is_empty()).then(|| steps.join("\n")),
        after: served.then(|| format!("mkdir -p .trackbed\ncat > {ROUTER} <<'END'\n{ROUTER_TEXT}END")),
        drop: Vec::new(),
        secrets: vec!["COMPOSER_AUTH".to_owned()],
        build_env: pairs([("COMPOSER_CACHE_DIR", "{cache}"), ("COMPOSER_ALLOW_SUPERUSER", "1")]),
        // Without workers PHP's own server answers one request at a time.
        env: pairs([("PHP_CLI_SERVER_WORKERS", "4"), ("LANG", "C.UTF-8")]),
        path: vec!["vendor/bin".to_owned()],
    };
    Decided::of("php", summary, &recipe, settings)
}

/// Says how the source is started, unless it is known. Returns whether PHP's own server does it.
fn give_own_start(source: &Path, tree: Option<&Node>, draft: &mut Draft) -> Result<bool, PortError> {
    if draft.find(Key::StartCommand).is_some() {
        return Ok(false);
    }
    let requires =
        |name: &str| tree.is_some_and(|tree| tree.get("require").is_some_and(|all| all.get(name).is_some()));
    if requires("laravel/octane") {
        give_start(draft, "php artisan octane:start --host=0.0.0.0 --port=$PORT", MANIFEST);
        return Ok(false);
    }
    let root = ["public", "web", "."].into_iter().find(|root| source.join(root).join("index.php").is_file());
    let Some(root) = root else {
        return Err(PortError::new(
            "found no way to start this source: no index.php at the root, in public or in web",
        )
        .hint("say it: trackbed up --start 'php server.php'"));
    };
    let place = if root == "." { "index.php".to_owned() } else { format!("{root}/index.php") };

    let message = "served by PHP's own server, four requests at a time: enough for small sites; for more, add \
                   laravel/octane or set deploy.startCommand";
    draft.warn(&place, None, message);
    give_start(draft, format!("exec php -S 0.0.0.0:$PORT -t {root} {ROUTER}"), place);
    Ok(true)
}

/// What the source asks of PHP.
fn asked(source: &Path, tree: Option<&Node>) -> Result<Option<Asks>, PortError> {
    let found = tree.and_then(|tree| tree.get("require")).and_then(|require| require.member("php"));
    if let Some(member) = found
        && let Some(text) = member.node.text()
    {
        let place = format!("{MANIFEST}:{}", member.place.line);
        return Ok(Some(Asks { text: text.to_owned(), place, range: Range::parse_pessimistic(text) }));
    }
    toolchain::tool_versions(source, &["php"])
}
