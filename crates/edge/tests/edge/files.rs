//! A target that is a folder: what is answered of it, and how.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use trackbed_core::ports::{Edge, Probe};
use trackbed_core::route::{Address, Target, UpstreamState};

use crate::support::*;

/// A site on disk, and an edge that serves it as `a.test`.
pub(crate) struct Site {
    pub(crate) edge: TestEdge,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn files(number: u8, fallback: &str, folder: &Path) -> UpstreamState {
    let address = Address(format!("files:{fallback}:{}", folder.display()));
    UpstreamState::Serving { target: Target { instance: instance(number), address } }
}

impl Site {
    pub(crate) async fn of(fallback: &str, content: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in content {
            let path = folder.path().join("site").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let edge = TestEdge::start_with_workers(1).await;
        edge.apply(&[("a.test", files(1, fallback, &folder.path().join("site")))]).await;
        Self { edge, folder }
    }

    pub(crate) fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("site").join(path)
    }

    /// Asks once, on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, fields: &[&str]) -> Message {
        let mut client = self.edge.connect().await;
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        client
            .send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n"))
            .await;
        let answer = client.wait_closed().await;
        let at = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(answer[..at].to_vec()).unwrap();
        let message = Message { head, body: answer[at..].to_vec() };
        if let Some(length) =
            message.header("content-length").filter(|_| method != "HEAD" && message.status() != 304)
        {
            assert_eq!(length.parse::<usize>().unwrap(), message.body.len(), "{}", message.head);
        } else {
            assert!(message.body.is_empty(), "{}", message.head);
        }
        message
    }

    pub(crate) async fn get(&self, path: &str) -> Message {
        self.ask("GET", path, &[]).await
    }
}

#[tokio::test]
async fn a_path_leads_to_its_file_its_page_or_its_folder() {
    let content = [
        ("index.html", "home"),
        ("about.html", "about"),
        ("docs/index.html", "docs"),
        ("docs/a b.txt", "spaces"),
        ("empty.txt", ""),
        ("x", "file"),
        ("x.html", "page"),
    ];
    let site = Site::of("404", &content).await;
    for (path, text) in [
        ("/", "home"),
        ("/index.html", "home"),
        ("/about", "about"),
        ("/about.html?q=1", "about"),
        ("/docs/", "docs"),
        ("/docs/a%20b.txt", "spaces"),
        ("//docs//./a%20b.txt", "spaces"),
        ("/docs/../about", "about"),
        ("/empty.txt", ""),
        ("/x", "file"),
    ] {
        let answer = site.get(path).await;
        assert_eq!((answer.status(), answer.text()), (200, text), "{path}");
    }
    let moved = site.get("/docs?page=2").await;
    assert_eq!((moved.status(), moved.header("location")), (301, Some("/docs/?page=2")));
    for path in ["/nothing", "/about/", "/x/y", "/docs/nothing"] {
        assert_eq!(site.get(path).await.status(), 404, "{path}");
    }
    assert_eq!(site.get("/health").await.status(), 200, "a site is healthy there whatever it holds");
}

#[tokio::test]
async fn an_answer_says_what_the_file_is_and_how_long_it_keeps() {
    let content = [("index.html", "home"), ("assets/index-BfJ2x9aQ.js", "js"), ("data", "?")];
    let site = Site::of("404", &content).await;
    let page = site.get("/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("accept-ranges"), Some("bytes"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(page.header("etag").is_some_and(|tag| tag.starts_with('"') && tag.ends_with('"')));
    assert!(page.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));
    assert!(page.header("x-request-id").is_some() && page.header("date").is_some());
    let script = site.get("/assets/index-BfJ2x9aQ.js").await;
    assert_eq!(script.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(site.get("/data").await.header("content-type"), Some("application/octet-stream"));
    let head = site.ask("HEAD", "/", &[]).await;
    assert_eq!((head.status(), head.header("content-length")), (200, Some("4")));
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let site = Site::of("404", &[("index.html", "home")]).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let answer = site.ask(method, "/", &["Content-Length: 0"]).await;
        assert_eq!((answer.status(), answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let mut client = site.edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(client.message().await.text(), "home", "a body that nobody reads is in nobody's way");
}

#[tokio::test]
async fn what_is_missing_is_404_and_a_page_of_the_site_may_say_so() {
    let site = Site::of("404", &[("index.html", "home")]).await;
    let answer = site.get("/nothing").await;
    assert!(answer.status() == 404 && answer.text().contains("no_such_file"), "{}", answer.text());
    fs::write(site.path("404.html"), "lost").unwrap();
    let answer = site.ask("GET", "/nothing", &["Range: bytes=0-0", "If-None-Match: *"]).await;
    assert_eq!((answer.status(), answer.text()), (404, "lost"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
}

#[tokio::test]
async fn one_page_answers_for_every_path_that_is_no_file() {
    let site = Site::of("index", &[("index.html", "app"), ("404.html", "lost"), ("assets/a.js", "js")]).await;
    for path in ["/", "/users/7", "/users/7/"] {
        let answer = site.get(path).await;
        assert_eq!((answer.status(), answer.text()), (200, "app"), "{path}");
    }
    let named = site.ask("GET", "/users/jo.doe", &["Accept: text/html,*/*"]).await;
    assert_eq!((named.status(), named.text()), (200, "app"), "a browser goes to a page");
    let script = site.ask("GET", "/assets/old.js", &["Accept: */*"]).await;
    assert_eq!(script.status(), 404, "a page is no script");
}

#[tokio::test]
async fn a_part_is_answered_with_that_part() {
    let site = Site::of("404", &[("n.txt", "0123456789")]).await;
    let part = site.ask("GET", "/n.txt", &["Range: bytes=2-4"]).await;
    assert_eq!((part.status(), part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let beyond = site.ask("GET", "/n.txt", &["Range: bytes=10-"]).await;
    assert_eq!((beyond.status(), beyond.header("content-range")), (416, Some("bytes */10")));
    let tag = part.header("etag").unwrap();
    let same = site.ask("GET", "/n.txt", &["Range: bytes=-1", &format!("If-Range: {tag}")]).await;
    assert_eq!((same.status(), same.text()), (206, "9"));
    let other = site.ask("GET", "/n.txt", &["Range: bytes=-1", "If-Range: \"other\""]).await;
    assert_eq!((other.status(), other.text()), (200, "0123456789"));
    let head = site.ask("HEAD", "/n.txt", &["Range: bytes=2-4"]).await;
    assert_eq!((head.status(), head.header("content-length")), (200, Some("10")));
}

#[tokio::test]
async fn a_file_that_the_client_has_is_not_sent_again() {
    let site = Site::of("404", &[("n.txt", "0123456789")]).await;
    let first = site.get("/n.txt").await;
    let (tag, date) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for field in [format!("If-None-Match: {tag}"), format!("If-Modified-Since: {date}")] {
        let again = site.ask("GET", "/n.txt", &[&field]).await;
        assert_eq!((again.status(), again.header("etag")), (304, Some(tag)), "{field}");
    }
    assert_eq!(site.ask("GET", "/n.txt", &["If-Match: \"other\""]).await.status(), 412);
}

#[tokio::test]
async fn a_compressed_twin_is_given_to_whoever_takes_it() {
    let content = [
        ("a.js", "plain"),
        ("a.js.gz", "gzipped"),
        ("a.js.br", "brotli"),
        ("b.css", "css"),
        ("c.png", "png"),
        ("c.png.gz", "no"),
    ];
    let site = Site::of("404", &content).await;
    for (accepted, path, coding, text) in [
        ("gzip, deflate, br", "/a.js", Some("br"), "brotli"),
        ("gzip", "/a.js", Some("gzip"), "gzipped"),
        ("br;q=0, gzip;q=0.1", "/a.js", Some("gzip"), "gzipped"),
        ("deflate", "/a.js", None, "plain"),
        ("gzip", "/b.css", None, "css"),
        ("gzip", "/c.png", None, "png"),
    ] {
        let answer = site.ask("GET", path, &[&format!("Accept-Encoding: {accepted}")]).await;
        assert_eq!((answer.header("content-encoding"), answer.text()), (coding, text), "{accepted} {path}");
        if path == "/a.js" {
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        }
    }
    let plain = site.get("/a.js").await;
    let coded = site.ask("GET", "/a.js", &["Accept-Encoding: br"]).await;
    assert_ne!(plain.header("etag"), coded.header("etag"), "they are two files");
}

#[tokio::test]
async fn a_tag_goes_with_the_content_where_the_builder_left_its_digest() {
    let site = Site::of("404", &[("n.txt", "same")]).await;
    let file = fs::File::open(site.path("n.txt")).unwrap();
    let digest = "0123456789abcdef0123456789abcdef";
    let kept = rustix::fs::fsetxattr(
        &file,
        "user.trackbed.digest",
        digest.as_bytes(),
        rustix::fs::XattrFlags::empty(),
    );
    if kept.is_err() {
        // Some file systems keep no attributes; the other tests show what holds there.
        return;
    }
    assert_eq!(site.get("/n.txt").await.header("etag"), Some(format!("\"{digest}\"").as_str()));
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let site = Site::of("404", &[("a", "first"), ("b", "second")]).await;
    let mut client = site.edge.connect().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.send([get("/a"), get("/none"), get("/b")].concat()).await;
    assert_eq!(client.message().await.text(), "first");
    assert_eq!(client.message().await.status(), 404);
    assert_eq!(client.message().await.text(), "second");
    until(|| async { site.edge.in_flight(1).await == 0 }).await;
    assert_eq!(site.edge.stats().await.targets[instance(1).as_str()].requests, 3);
}

#[tokio::test]
async fn a_large_file_arrives_whole_while_others_are_served() {
    let bytes: Vec<u8> = (0..10_000_000u32).map(|number| (number % 251) as u8).collect();
    let site = Site::of("404", &[("a", "small")]).await;
    fs::write(site.path("large.bin"), &bytes).unwrap();
    let mut slow = site.edge.connect().await;
    slow.send("GET /large.bin HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = slow.read_to("\r\n\r\n").await;
    assert!(head.contains("Content-Length: 10000000\r\n"), "{head}");
    assert_eq!(site.get("/a").await.text(), "small", "one worker serves both");
    assert!(slow.read_exact(bytes.len()).await == bytes, "every byte in its place");
    assert_eq!(slow.get("/a").await.text(), "small", "and the connection goes on");
}

#[tokio::test]
async fn a_cut_ends_an_answer_under_way() {
    let site = Site::of("404", &[("a", "small")]).await;
    fs::write(site.path("large.bin"), vec![7; 50_000_000]).unwrap();
    let mut slow = site.edge.connect().await;
    slow.send("GET /large.bin HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    slow.read_to("\r\n\r\n").await;
    site.edge.apply(&[("a.test", files(2, "404", &site.path("")))]).await;
    assert_eq!(site.edge.in_flight(1).await, 1, "an answer under way goes on after a switch");
    site.edge.client.cut(&instance(1)).await.unwrap();
    until(|| async { site.edge.in_flight(1).await == 0 }).await;
    assert!(slow.wait_closed().await.len() < 50_000_000, "it ended early");
    assert_eq!(site.get("/a").await.text(), "small");
}

#[tokio::test]
async fn a_process_and_a_folder_take_turns_on_one_connection() {
    let site = Site::of("404", &[("a", "file")]).await;
    let app = Upstream::saying("process").await;
    let mut client = site.edge.connect().await;
    assert_eq!(client.get("/a").await.text(), "file");
    site.edge.serve(2, app.address).await;
    assert_eq!(client.get("/a").await.text(), "process");
    site.edge.apply(&[("a.test", files(1, "404", &site.path("")))]).await;
    assert_eq!(client.get("/a").await.text(), "file");
}

#[tokio::test]
async fn a_restarted_edge_serves_the_files_before_anybody_tells_it() {
    let Site { edge, folder } = Site::of("404", &[("a", "file")]).await;
    let state = edge.stop().await;
    let edge = TestEdge::start_in(state).await;
    assert_eq!(edge.connect().await.get("/a").await.text(), "file");
    drop(folder);
}

#[tokio::test]
async fn files_that_are_gone_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", files(1, "404", &folder.path().join("gone")))]).await;
    let answer = edge.connect().await.get("/").await;
    assert!(answer.status() == 500 && answer.text().contains("files_unreadable"), "{}", answer.text());
}

#[tokio::test]
async fn a_probe_sees_what_a_request_would() {
    let site = Site::of("404", &[("index.html", "home"), ("docs/index.html", "docs")]).await;
    let UpstreamState::Serving { target } = files(1, "404", &site.path("")) else { unreachable!() };
    let UpstreamState::Serving { target: gone } = files(1, "404", &site.path("gone")) else { unreachable!() };
    let probe = |target: Target, path: Option<&'static str>| {
        let client = site.edge.client.clone();
        async move { client.probe(&target, path, "a.test", Duration::from_secs(5)).await }
    };
    let answered = |status, detail: &str| Probe::Answered { status, detail: detail.to_owned() };
    assert_eq!(probe(target.clone(), None).await, answered(200, ""));
    assert_eq!(probe(target.clone(), Some("/")).await, answered(200, "home"));
    assert_eq!(probe(target.clone(), Some("/health?x")).await, answered(200, ""));
    assert_eq!(probe(target.clone(), Some("/docs")).await, answered(301, "/docs/"));
    assert!(matches!(probe(target, Some("/x")).await, Probe::Answered { status: 404, .. }));
    assert!(matches!(probe(gone, None).await, Probe::Broken { .. }));
}

#[tokio::test]
async fn a_link_within_the_folder_is_followed() {
    let site = Site::of("404", &[("real/a.txt", "text")]).await;
    symlink("real", site.path("linked")).unwrap();
    symlink("real/a.txt", site.path("b.txt")).unwrap();
    assert_eq!(site.get("/linked/a.txt").await.text(), "text");
    assert_eq!(site.get("/b.txt").await.text(), "text");
}
