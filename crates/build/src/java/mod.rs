//! The Java provider: one jar by Maven or Gradle, through the wrapper of the source where it has one.

mod asked;

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::steps::{RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Program, Programs, Tool};

/// Where the jar is put.
const JAR: &str = ".trackbed/app.jar";
/// Quarkus makes a folder, of which this jar is the entrance.
const QUARKUS: &str = "quarkus-app/quarkus-run.jar";

/// What builds the source.
struct Build {
    file: &'static str,
    tool: Tool,
    wrapper: &'static str,
    /// After the program.
    arguments: &'static str,
    /// Where the jars are.
    output: &'static str,
}

const MAVEN: Build = Build {
    file: "pom.xml",
    tool: Tool::Maven,
    wrapper: "mvnw",
    arguments: "--batch-mode --no-transfer-progress -DskipTests package",
    output: "target",
};
const GRADLE: Build = Build {
    file: "build.gradle",
    tool: Tool::Gradle,
    wrapper: "gradlew",
    arguments: "--no-daemon --console=plain assemble",
    output: "build/libs",
};
const BUILDS: [Build; 3] = [GRADLE, Build { file: "build.gradle.kts", ..GRADLE }, MAVEN];

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let found = BUILDS.into_iter().find(|build| look.source.join(build.file).is_file());
    let Some(build) = found else { return Ok(Found::No) };
    let text = text::find(look.source, build.file)?.unwrap_or_default();
    let asks = asked::find(look.source, build.file, &text)?;
    let java = toolchain::choose(look.programs, Tool::Java, asks.as_ref())?;
    let (program, tool) = builder(look.source, look.programs, &build)?;
    let quarkus = text.contains("io.quarkus");
    let spring = text.contains("org.springframework.boot");
    let own = draft.text(Key::BuildCommand);
    if draft.find(Key::StartCommand).is_none() {
        let jar = if quarkus {
            format!("{}/{QUARKUS}", build.output.trim_end_matches("/libs"))
        } else {
            JAR.to_owned()
        };
        // Each names its port in its own way; a plain program reads PORT itself.
        let port = match (quarkus, spring) {
            (true, _) => " -Dquarkus.http.host=0.0.0.0 -Dquarkus.http.port=$PORT",
            (_, true) => " -Dserver.port=$PORT",
            (false, false) => "",
        };
        give_start(draft, format!("exec java $JAVA_OPTS{port} -jar {jar}"), build.file);
    }
    let settings = vec![version_setting("java", &java, asks.as_ref())];
    let title = if build.tool == Tool::Maven { "maven" } else { "gradle" };
    let by =
        tool.as_ref().map_or_else(|| build.wrapper.to_owned(), |tool| format!("{title} {}", tool.version));
    let summary = format!("java {} ({}), {}, {by}", java.version, place_of(asks.as_ref()), build.file);
    let home = java.folder().parent().unwrap_or(Path::new("/usr")).display().to_string();
    // The home of the user that a job runs as is what Java takes from the system, not from `HOME`.
    let maven = "-Dmaven.repo.local={cache}/repository -Duser.home=/tmp";
    let build_env = pairs([
        ("JAVA_HOME", &home),
        ("MAVEN_OPTS", maven),
        ("MAVEN_USER_HOME", "{cache}/maven"),
        ("GRADLE_USER_HOME", "{cache}/gradle"),
    ]);
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: std::iter::once(java).chain(tool).collect(),
        at_run: true,
        install: None,
        build: Some(own.unwrap_or_else(|| format!("{program} {}", build.arguments))),
        after: (!quarkus).then(|| take_jar(build.output)),
        drop: vec![".gradle".to_owned()],
        secrets: Vec::new(),
        build_env,
        // Half of the memory of a small service for the heap, instead of Java's quarter.
        env: pairs([("JAVA_HOME", &home), ("JAVA_OPTS", "-XX:MaxRAMPercentage=50"), ("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    Decided::of("java", summary, &recipe, settings)
}

/// The wrapper of the source, which brings the version that its author used; else the box's tool.
fn builder(
    source: &Path,
    programs: &dyn Programs,
    build: &Build,
) -> Result<(String, Option<Program>), PortError> {
    if source.join(build.wrapper).is_file() {
        return Ok((format!("sh ./{}", build.wrapper), None));
    }
    let tool = toolchain::choose(programs, build.tool, None)?;
    Ok((build.tool.program().to_owned(), Some(tool)))
}

/// Takes the one jar that can be started; several are a question to the owner, not a guess.
fn take_jar(output: &str) -> String {
    format!(
        "found=\n\
         for jar in {output}/*.jar */{output}/*.jar; do\n\
         case \"$jar\" in *-plain.jar|*-sources.jar|*-javadoc.jar|*-tests.jar|*/original-*) continue;; esac\n\
         [ -f \"$jar\" ] || continue\n\
         rm -rf /tmp/jar && mkdir /tmp/jar && (cd /tmp/jar && jar xf \"/app/$jar\" META-INF/MANIFEST.MF)\n\
         if grep -q '^Main-Class:' /tmp/jar/META-INF/MANIFEST.MF; then found=\"$found $jar\"; fi\n\
         done\n\
         set -- $found\n\
         [ $# -eq 1 ] || {{ echo \"expected one jar with a Main-Class below {output}, found $#:$found\" >&2; exit 1; }}\n\
         mkdir -p .trackbed\ncp \"$1\" {JAR}"
    )
}
