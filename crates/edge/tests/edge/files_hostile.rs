//! Whatever a client writes and whatever stands in the folder, nothing outside of it is given out, and nothing hangs.

use std::fs;
use std::os::unix::fs::symlink;

use crate::files::Site;
use crate::support::*;

const SECRET: &str = "nobody may read this";

/// A site with a secret beside it.
async fn site(fallback: &str) -> Site {
    let site = Site::of(fallback, &[("index.html", "home"), ("a/b.txt", "text")]).await;
    fs::write(site.folder.path().join("secret"), SECRET).unwrap();
    site
}

#[tokio::test]
async fn no_path_leaves_the_folder() {
    let long = format!("/{}", "a/".repeat(8_000));
    let many = format!("/{}secret", "%2e%2e/".repeat(200));
    let name = format!("/{}", "n".repeat(300));
    for fallback in ["404", "index"] {
        let site = site(fallback).await;
        for path in [
            "/../secret",
            "/..%2fsecret",
            "/%2e%2e/secret",
            "/%2E%2E%2Fsecret",
            "/a/../../secret",
            "/a/%2e%2e/%2e%2e/secret",
            "//../secret",
            "/./../secret",
            "/a/b.txt/../../../secret",
            "/..\\secret",
            "/%5c..%5csecret",
            "/%252e%252e/secret",
            "/%c0%ae%c0%ae/secret",
            "/../site/../secret",
            "/secret%00.txt",
            "/a%00/../../secret",
            "/%ff%fe/..%2f..%2fsecret",
            "/..;/secret",
            long.as_str(),
            many.as_str(),
            name.as_str(),
        ] {
            let answer = site.get(path).await;
            assert!(!answer.text().contains(SECRET), "{path}");
            let is_page = fallback == "index" && answer.text() == "home";
            assert!(answer.status() == 404 || is_page, "{path}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn a_link_out_of_the_folder_leads_nowhere() {
    let site = site("404").await;
    let secret = site.folder.path().join("secret");
    symlink("../secret", site.path("up.txt")).unwrap();
    symlink(&secret, site.path("whole.txt")).unwrap();
    symlink("..", site.path("parent")).unwrap();
    symlink(site.folder.path(), site.path("root")).unwrap();
    symlink("/proc/self/root", site.path("magic")).unwrap();
    symlink("circle", site.path("circle")).unwrap();
    let depth = secret.components().count();
    for path in ["/up.txt", "/whole.txt", "/parent/secret", "/root/secret", "/circle", "/magic/etc/passwd"] {
        let answer = site.get(path).await;
        assert_eq!(answer.status(), 404, "{path} ({depth} parts deep)");
        assert!(!answer.text().contains(SECRET) && !answer.text().contains("root:"), "{path}");
    }
    fs::create_dir(site.path("folder")).unwrap();
    symlink("../../secret", site.path("folder/index.html")).unwrap();
    symlink("../secret", site.path("404.html")).unwrap();
    for path in ["/folder/", "/folder", "/none"] {
        assert!(!site.get(path).await.text().contains(SECRET), "{path}");
    }
}

#[tokio::test]
async fn a_pipe_in_the_folder_holds_nobody_up() {
    let site = site("404").await;
    nix::unistd::mkfifo(&site.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(site.get("/pipe").await.status(), 404);
    let socket = std::os::unix::net::UnixListener::bind(site.path("socket")).unwrap();
    assert_eq!(site.get("/socket").await.status(), 404);
    drop(socket);
}

#[tokio::test]
async fn hidden_files_are_not_there() {
    let content = [
        ("index.html", "home"),
        (".env", SECRET),
        (".git/config", SECRET),
        ("a/.hidden", SECRET),
        (".well-known/ok", "ok"),
    ];
    let site = Site::of("404", &content).await;
    for path in ["/.env", "/.git/config", "/a/.hidden", "/%2eenv", "/./.env", "/a/../.env"] {
        let answer = site.get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert!(!answer.text().contains(SECRET), "{path}");
    }
    assert_eq!(site.get("/.well-known/ok").await.text(), "ok");
}

#[tokio::test]
async fn a_redirect_stays_on_the_host() {
    let site = Site::of("404", &[("evil.test/index.html", "x"), ("new\nline/index.html", "x")]).await;
    let answer = site.get("//evil.test").await;
    assert_eq!((answer.status(), answer.header("location")), (301, Some("/evil.test/")));
    let answer = site.get("/new%0aline").await;
    assert_eq!((answer.status(), answer.header("location")), (301, Some("/new%0Aline/")));
}

#[tokio::test]
async fn a_file_that_shrinks_under_way_ends_its_connection() {
    let site = site("404").await;
    fs::write(site.path("large.bin"), vec![7; 50_000_000]).unwrap();
    let mut client = site.edge.connect().await;
    client.send("GET /large.bin HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client.read_to("\r\n\r\n").await;
    fs::File::options().write(true).open(site.path("large.bin")).unwrap().set_len(10).unwrap();
    assert!(client.wait_closed().await.len() < 50_000_000, "nothing is made up");
    assert_eq!(site.get("/a/b.txt").await.text(), "text");
}

#[tokio::test]
async fn a_client_that_leaves_costs_nothing_more() {
    let site = site("404").await;
    fs::write(site.path("large.bin"), vec![7; 50_000_000]).unwrap();
    for _ in 0..20 {
        let mut client = site.edge.connect().await;
        client.send("GET /large.bin HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        client.read_to("\r\n\r\n").await;
    }
    until(|| async { site.edge.in_flight(1).await == 0 }).await;
    assert_eq!(site.get("/a/b.txt").await.text(), "text");
}
