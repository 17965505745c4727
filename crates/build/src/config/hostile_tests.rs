//! Files that nobody means well with: every reader comes to an end soon, and none of them panics.

use std::fs;

use super::*;

/// Reads a folder with this one file, and returns what was said about it.
fn said(name: &str, bytes: &[u8]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    trackbed_stdx::files::write_atomic(&path, bytes, 0o644).unwrap();
    match read(folder.path(), &[], &[], &[]) {
        Ok(draft) => draft.warnings.into_iter().map(|warning| warning.message).collect(),
        Err(error) => vec![error.message],
    }
}

/// A file of each kind with a table of the given members, written as that kind does.
fn with_members(name: &str, members: impl Iterator<Item = (String, String)>) -> String {
    let members: Vec<_> = members.collect();
    let lines = |join: &str| {
        let lines: Vec<_> = members.iter().map(|(key, value)| format!("{key}{join}{value}")).collect();
        lines.join("\n")
    };
    match name.rsplit('.').next() {
        Some("toml") => lines(" = "),
        Some("json" | "captain-definition") => {
            let lines = members.iter().map(|(key, value)| format!("\"{key}\": {value}"));
            format!("{{{}}}", lines.collect::<Vec<_>>().join(","))
        }
        _ => lines(": "),
    }
}

#[test]
fn a_file_of_ten_megabytes_is_named_and_not_read() {
    let bytes = vec![b' '; 10 << 20];
    for name in files() {
        let said = said(name, &bytes);
        assert!(
            said.len() == 1 && said[0].starts_with(&format!("{name} is 10 MB; at most 1 MB")),
            "{said:?}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_named() {
    for name in files() {
        for bytes in [&b"a: \xff\xfe\x80\n"[..], b"\xff\xfe\x00\xd8\x00"] {
            let said = said(name, bytes);
            assert!(said.len() == 1 && said[0].starts_with(name), "{said:?}");
        }
        said(name, &[0; 100]);
    }
}

#[test]
fn nesting_without_end_is_no_end_of_the_stack() {
    let deep = 300_000;
    for name in files() {
        for (open, inner) in
            [("[", ""), ("{\"a\":", ""), ("a = [", ""), ("{a: ", ""), ("- ", "x"), ("a:\n ", "")]
        {
            said(name, format!("{}{inner}", open.repeat(deep)).as_bytes());
        }
        let value = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        let closed = with_members(name, std::iter::once(("a".to_owned(), value)));
        assert!(!said(name, closed.as_bytes()).is_empty(), "{name}");
        let tables = format!("[{}a]\nb = 1\n", "a.".repeat(100_000));
        said(name, tables.as_bytes());
    }
}

#[test]
fn many_unknown_keys_are_told_in_part() {
    for name in files() {
        let many = with_members(name, (0..60_000).map(|number| (format!("key{number}"), "1".to_owned())));
        let said = said(name, many.as_bytes());
        assert!(said.len() <= 202, "{name}: {}", said.len());
        if !matches!(name, "service.yaml" | "app.json" | "Procfile") && !name.contains("compose") {
            let last = said.last().unwrap();
            assert!(last.contains("more than 200 oddities") || last.contains("values"), "{name}: {last}");
        }
    }
}

#[test]
fn the_last_of_two_equal_keys_counts_and_toml_refuses_them() {
    for name in ["railway.json", "railpack.json"] {
        let text =
            r#"{"deploy": {"startCommand": "a"}, "deploy": {"startCommand": "b", "startCommand": "c"}}"#;
        let folder = tempfile::tempdir().unwrap();
        trackbed_stdx::files::write_atomic(&folder.path().join(name), text.as_bytes(), 0o644).unwrap();
        let draft = read(folder.path(), &[], &[], &[]).unwrap();
        assert_eq!(draft.text(Key::StartCommand).as_deref(), Some("c"), "{name}");
    }
    for name in files().filter(|name| name.ends_with(".toml")) {
        let said = said(name, b"[deploy]\na = 1\na = 2\n");
        assert!(said.len() == 1 && said[0].starts_with(&format!("{name}:3:1: ")), "{said:?}");
    }
    for name in files() {
        let many = with_members(name, (0..100_000).map(|_| ("same".to_owned(), "1".to_owned())));
        assert!(said(name, many.as_bytes()).len() <= 202, "{name}");
    }
}

#[test]
fn an_alias_that_stands_for_billions_is_refused() {
    let mut laughs = String::from("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
    for level in 1..14 {
        let below = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
    }
    let merges =
        format!("base: &b {{{}}}\n{}", (0..900).map(|key| format!("k{key}: 1, ")).collect::<String>(), {
            (0..2000).map(|table| format!("t{table}:\n  <<: *b\n  own: 1\n")).collect::<String>()
        });
    for name in files().filter(|name| name.ends_with("ml") && !name.ends_with("toml")) {
        for text in [&laughs, &merges] {
            let said = said(name, text.as_bytes());
            assert!(said.len() == 1 && said[0].contains("100000 values"), "{name}: {said:?}");
        }
    }
}

#[test]
fn a_key_or_value_of_a_million_letters_is_quoted_in_brief() {
    let long = "x".repeat(1_000_000);
    for name in files() {
        for (key, value) in
            [(long.as_str(), "1"), ("deploy", long.as_str()), ("services", &format!("\"{long}\""))]
        {
            let text = with_members(name, std::iter::once((key.to_owned(), value.to_owned())));
            for message in said(name, text.as_bytes()) {
                assert!(message.len() < 2000, "{name}: {} letters", message.len());
            }
        }
    }
}
