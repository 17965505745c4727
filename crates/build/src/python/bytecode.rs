//! Bytecode of dependencies, made when they are installed: an app that starts compiles nothing, and could keep nothing.
//!
//! Installers compile everything anew each time. What a service has compiled before is kept in a cache of its own, named by
//! interpreter, path and text: after a change of the list only what is new is compiled.

use trackbed_core::Secret;

/// The step, which is part of what a layer is named by.
pub(super) const CODE: &str = include_str!("bytecode.py");
const VARIABLE: &str = "TRACKBED_BYTECODE";
/// The last step of an install. That some modules have none costs the app time at each start, and nothing else; whatever else
/// goes wrong, a full disk or a lack of memory, makes the install fail.
pub(super) const COMMAND: &str = r#"/app/.venv/bin/python -ISW ignore -c "$TRACKBED_BYTECODE" /app/.venv/lib "$UV_CACHE_DIR/bytecode" || {
  code=$?; [ $code = 1 ] || exit $code
  echo 'not all modules could be compiled: the app compiles them at each of its starts' >&2
}
"#;

/// What [`COMMAND`] needs in its environment.
pub(super) fn variable() -> (String, Secret<String>) {
    (VARIABLE.to_owned(), Secret::new(CODE.to_owned()))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    /// Runs the step as an install does, on a library and a cache of this test's own. Returns what was said.
    fn compile(folder: &Path) -> String {
        compile_and_end(folder, 0)
    }

    fn compile_and_end(folder: &Path, code: i32) -> String {
        let mut python = Command::new("python3");
        python.args(["-ISW", "ignore", "-c", CODE]).arg(folder.join("lib")).arg(folder.join("cache"));
        let output = python.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && said.is_empty(), "{:?}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join("lib").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What a module says when it is imported.
    fn imported(folder: &Path, module: &str) -> String {
        let mut python = Command::new("python3");
        python
            .env("PYTHONPATH", folder.join("lib"))
            .args(["-c", &format!("import {module} as m; print(m.WORD)")]);
        String::from_utf8(python.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    fn pieces(folder: &Path) -> Vec<PathBuf> {
        let folders = fs::read_dir(folder.join("cache")).unwrap().flatten();
        folders
            .flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten())
            .map(|entry| entry.path())
            .collect()
    }

    #[test]
    fn what_was_compiled_before_is_taken_from_the_cache_and_python_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for number in 0..20 {
            write(folder, &format!("many/m{number}.py"), &format!("WORD = 'one{number}'\n"));
        }
        write(folder, "many/template.py", "{{ this is }} no Python\n");
        write(folder, "many/note.txt", "neither is this");
        assert_eq!(compile(folder), "Compiled 20 modules; the bytecode of 0 was there");
        // Another text of the same size and time: whoever takes the bytecode does not see it.
        let path = folder.join("lib/many/m3.py");
        let was = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "WORD = 'two3'\n").unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(was).unwrap();
        assert_eq!(imported(folder, "many.m3"), "one3");

        // An install writes everything anew, at another time.
        fs::remove_dir_all(folder.join("lib")).unwrap();
        for number in 0..20 {
            let word = if number == 7 { "changed" } else { "one" };
            write(folder, &format!("many/m{number}.py"), &format!("WORD = '{word}{number}'\n"));
        }
        assert_eq!(compile(folder), "Compiled 1 modules; the bytecode of 19 was there");
        assert_eq!(imported(folder, "many.m7"), "changed7");

        // The same text at another place is another module: tracebacks name it.
        write(folder, "other.py", "WORD = 'one3'\n");
        assert_eq!(compile(folder), "Compiled 1 modules; the bytecode of 20 was there");
    }

    #[test]
    fn a_module_whose_bytecode_has_no_place_costs_the_others_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for number in 0..20 {
            write(folder, &format!("many/m{number}.py"), &format!("WORD = 'one{number}'\n"));
        }
        write(folder, "odd/one.py", "WORD = 'one'\n");
        write(folder, "odd/__pycache__", "a file where the folder should be");
        let long = "x".repeat(250);
        write(folder, &format!("{long}.py"), "WORD = 'long'\n");
        assert_eq!(compile_and_end(folder, 1), "Compiled 20 modules; the bytecode of 0 was there");
        assert_eq!(imported(folder, "many.m19"), "one19");
        assert_eq!(imported(folder, "odd.one"), "one");
        let made = fs::read_dir(folder.join("lib/many/__pycache__")).unwrap();
        assert!(
            made.flatten().all(|entry| entry.path().extension().is_some_and(|end| end == "pyc")),
            "half made"
        );
    }

    #[test]
    fn a_damaged_piece_is_made_anew_and_a_cache_that_cannot_be_written_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, "one.py", "WORD = 'one'\n");
        compile(folder);
        let [piece] = &pieces(folder)[..] else { panic!("one piece") };
        for damage in [&b""[..], b"short", &[7; 200]] {
            fs::write(piece, damage).unwrap();
            assert_eq!(compile(folder), "Compiled 1 modules; the bytecode of 0 was there");
            assert_eq!(imported(folder, "one"), "one");
            assert_eq!(compile(folder), "Compiled 0 modules; the bytecode of 1 was there");
        }
        fs::remove_dir_all(folder.join("cache")).unwrap();
        fs::write(folder.join("cache"), "not a folder").unwrap();
        assert_eq!(compile(folder), "Compiled 1 modules; the bytecode of 0 was there");
        assert_eq!(imported(folder, "one"), "one");
    }
}
