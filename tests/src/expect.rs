//! What most tests of a bad day do: have a good release with data live, deploy something bad, and see that the failure
//! is said clearly and that nobody was harmed.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::{App, TestBox, Up};

impl TestBox {
    /// Deploys the plain app with a volume as a first release and puts a note into its database.
    pub fn up_good(&self, name: &str) -> App {
        let app = App::plain_with_volume(name);
        self.up_ok(&app.path());
        assert_eq!(self.request(name, "POST", "/notes", "kept").status, 201);
        app
    }

    /// Checks that the release of [`TestBox::up_good`] serves, with its data. When it has only just been put back, the
    /// request waits for it, but is never refused.
    pub fn assert_serves_on(&self, name: &str) {
        assert_eq!(self.get(name, "/version").body, "one");
        assert_eq!(self.get(name, "/notes").body, r#"["kept"]"#);
        self.wait_state(name, "running", Duration::from_secs(5));
        let service = self.service(name);
        assert_eq!(service["release"]["version"], 1, "{service:#}");
    }

    /// Deploys a folder and expects it to fail at a stage, with all of `words` in its reason. On a terminal it must say
    /// the same, so the hint is not checked here but returned.
    pub fn up_fails(&self, source: &Path, arguments: &[&str], stage: &str, words: &[&str]) -> Up {
        let up = self.up(source, arguments);
        assert_eq!(
            (up.code, up.text("status"), up.text("stage")),
            (1, "failed", stage),
            "{:#}\nserve: {}",
            up.last,
            self.serve_log()
        );
        for word in words {
            assert!(up.text("reason").contains(word), "no `{word}` in: {}", up.text("reason"));
        }
        assert!(up.last.get("hint").is_some(), "no key `hint`: {:#}", up.last);
        up
    }
}

impl Up {
    /// Checks that the hint holds these words.
    pub fn hints(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.text("hint").contains(word), "no `{word}` in the hint: {:#}", self.last);
        }
        self
    }

    /// Everything that warnings said.
    pub fn warnings(&self) -> String {
        let warnings = self.events.iter().filter(|event| event["kind"] == "warning");
        let lines: Vec<&str> = warnings.filter_map(|event| event["message"].as_str()).collect();
        lines.join("\n")
    }

    /// The last lines of the app or build that a failure quotes.
    pub fn quoted(&self) -> String {
        let lines = self.last["log_tail"].as_array().map(Vec::as_slice).unwrap_or_default();
        lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }
}
