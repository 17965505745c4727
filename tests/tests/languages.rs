//! One small source of each language: really built, started in an instance, health-checked and asked through the edge.

use std::path::{Path, PathBuf};
use std::process::Command;

use trackbed_tests::{App, TestBox};

/// Deploys by `/health` and returns what the app says there.
fn health(town: &TestBox, app: &App, name: &str) -> String {
    app.write("railway.json", "{\"deploy\": {\"healthcheckPath\": \"/health\"}}");
    town.up_ok(&app.path());
    town.get(name, "/health").body
}

fn build_log(town: &TestBox, service: &str) -> String {
    town.trackbed(&["logs", "--build", "--service", service]).stdout
}

/// Finds a program on this machine. Without it the test says loudly that it tested nothing.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = [PathBuf::from("/usr/local/go/bin")];
    let here = std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file());
    if !here {
        eprintln!("NOT TESTED (no {program} here): sources that need it");
    }
    here
}

const EXPRESS: &str = r#"
const app = require("express")();
app.get("/health", (_, answer) => answer.send("express ONE"));
app.listen(process.env.PORT);
"#;

#[test]
fn an_express_app_is_installed_from_its_lock_and_only_once() {
    if !has("node") || !has("npm") {
        return;
    }
    let app = App::empty("shop");
    app.write(
        "package.json",
        r#"{"name": "shop", "scripts": {"start": "node server.js"}, "dependencies": {"express": "4.x"}}"#,
    );
    let lock = Command::new("npm").args(["install", "--package-lock-only"]).current_dir(app.path()).output();
    if !lock.is_ok_and(|lock| lock.status.success()) {
        eprintln!("NOT TESTED (npm's registry is out of reach): a Node source with dependencies");
        return;
    }
    app.write("server.js", EXPRESS);
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "express ONE");
    assert!(build_log(&town, "shop").contains("npm ci --omit=dev"));
    app.write("server.js", EXPRESS.replace("ONE", "TWO"));
    assert_eq!(health(&town, &app, "shop"), "express TWO");
    assert!(build_log(&town, "shop").contains("dependencies: reused layer"), "{}", build_log(&town, "shop"));
    // What was changed behind the lock's back is named.
    app.write("package.json", r#"{"name": "shop", "dependencies": {"express": "4.x", "uuid": "11.x"}}"#);
    town.up_fails(&app.path(), &[], "build", &["npm ci", "lock"]);
    assert_eq!(town.get("shop", "/health").body, "express TWO");
}

const NODE_SERVER: &str = r#"
import http from "node:http";
http.createServer((_, answer) => answer.end("built ONE")).listen(process.env.PORT);
"#;

#[test]
fn a_node_source_is_started_as_its_build_script_made_it() {
    if !has("node") || !has("npm") {
        return;
    }
    let app = App::empty("shop");
    app.write(
        "package.json",
        r#"{"name": "shop", "type": "module", "scripts": {"build": "node build.mjs", "start": "node dist/main.js"}}"#,
    );
    app.write("main.ts", NODE_SERVER);
    app.write(
        "build.mjs",
        "import fs from 'node:fs'; fs.mkdirSync('dist'); fs.copyFileSync('main.ts', 'dist/main.js');",
    );
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "built ONE");
    app.write("main.ts", NODE_SERVER.replace("ONE", "TWO"));
    assert_eq!(health(&town, &app, "shop"), "built TWO");
}

const GO: &str = r#"
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "go ONE") })
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
"#;

#[test]
fn a_go_module_is_compiled_and_its_next_build_uses_what_the_first_one_compiled() {
    if !has("go") {
        return;
    }
    let app = App::empty("shop");
    app.write("go.mod", "module example.com/shop\n\ngo 1.19\n").write("cmd/shop/main.go", GO);
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "go ONE");
    let caches: Vec<PathBuf> = files_below(&town.data_dir().join("cache"));
    app.write("cmd/shop/main.go", GO.replace("ONE", "TWO"));
    assert_eq!(health(&town, &app, "shop"), "go TWO");
    // The standard library was there: a whole one is several hundred files more.
    let after = files_below(&town.data_dir().join("cache"));
    assert!(after.len() < caches.len() + 50, "{} files, then {}", caches.len(), after.len());
    // The image holds the program, and neither compiler nor cache.
    let said = town.trackbed(&["run", "--service", "shop", "--", "ls", ".trackbed/bin"]);
    assert!(said.code == 0 && said.stdout.trim() == "app", "{said:?}");
    app.write("cmd/shop/main.go", "package main\n\nfunc main() { undefined() }\n");
    town.up_fails(&app.path(), &[], "build", &["undefined"]);
    assert_eq!(town.get("shop", "/health").body, "go TWO");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => files_below(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

const RUST: &str = r#"
use std::io::{Read, Write};

fn main() {
    let port = std::env::var("PORT").unwrap();
    let listener = std::net::TcpListener::bind(format!("0.0.0.0:{port}")).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nrust ONE");
    }
}
"#;

#[test]
fn a_rust_package_is_compiled_and_found_at_the_path_that_people_start_it_by() {
    let app = App::empty("shop");
    app.write("Cargo.toml", "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    app.write("Cargo.lock", "version = 3\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n");
    app.write("src/main.rs", RUST);
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "rust ONE");
    app.write("src/main.rs", RUST.replace("ONE", "TWO"));
    app.write(
        "railway.json",
        r#"{"build": {"buildCommand": "cargo build --release"},
            "deploy": {"startCommand": "./target/release/shop", "healthcheckPath": "/health"}}"#,
    );
    town.up_ok(&app.path());
    assert_eq!(town.get("shop", "/health").body, "rust TWO");
}

#[test]
fn flask_django_and_starlette_are_served_by_what_their_lists_bring() {
    let town = TestBox::start();
    let flask = App::empty("flask");
    flask.write("requirements.txt", "flask==3.0.3\ngunicorn==23.0.0\n").write(
        "shop/__init__.py",
        "from flask import Flask\n\n\ndef create_app():\n    app = Flask(__name__)\n\n    @app.get('/health')\n    \
         def health():\n        return 'flask'\n\n    return app\n",
    );
    assert_eq!(health(&town, &flask, "flask"), "flask");

    let starlette = App::empty("starlette");
    starlette.write("requirements.txt", "starlette==0.41.3\nuvicorn==0.32.1\n").write(
        "src/web/asgi.py",
        "from starlette.applications import Starlette\nfrom starlette.responses import PlainTextResponse\n\
         from starlette.routing import Route\n\n\nasync def health(_):\n    return PlainTextResponse('starlette')\n\n\n\
         application = Starlette(routes=[Route('/health', health)])\n",
    );
    assert_eq!(health(&town, &starlette, "starlette"), "starlette");

    let django = App::empty("django");
    let settings = "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'shop.urls'\n\
                    DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/tmp/x.sqlite3'}}\n";
    django.write("requirements.txt", "django==5.1.3\ngunicorn==23.0.0\n");
    let manage = "import os, sys\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n\
                  from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n";
    let wsgi = "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n\
                from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n";
    let urls = "from django.http import HttpResponse\nfrom django.urls import path\n\
                urlpatterns = [path('health', lambda request: HttpResponse('django'))]\n";
    django.write("manage.py", manage).write("shop/__init__.py", "").write("shop/settings.py", settings);
    django.write("shop/wsgi.py", wsgi).write("shop/urls.py", urls);
    assert_eq!(health(&town, &django, "django"), "django");
}

#[test]
fn a_ruby_source_is_bundled_and_started() {
    if !has("ruby") || !has("bundle") {
        return;
    }
    let app = App::empty("shop");
    app.write("Gemfile", "source \"https://rubygems.org\"\nruby \">= 2.7\"\n");
    app.write(
        "Gemfile.lock",
        "GEM\n  remote: https://rubygems.org/\n  specs:\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n",
    );
    app.write(
        "app.rb",
        "require 'socket'\nserver = TCPServer.new('0.0.0.0', ENV.fetch('PORT'))\nloop do\n  client = server.accept\n  \
         client.gets\n  client.write \"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 4\\r\\n\\r\\nruby\"\n  \
         client.close\nend\n",
    );
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "ruby");
}

#[test]
fn a_php_site_gives_away_pages_and_files_but_nothing_hidden() {
    if !has("php") {
        return;
    }
    let app = App::empty("shop");
    app.write("index.php", "<?php echo 'php ' . $_SERVER['REQUEST_URI'];");
    app.write("style.css", "body {}")
        .write("admin/index.php", "<?php echo 'admin';")
        .write("data/.key", "hush");
    app.write(".well-known/security.txt", "mail us");
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "php /health");
    assert_eq!(town.get("shop", "/style.css").body, "body {}");
    assert_eq!(town.get("shop", "/a/b.json?x=1").body, "php /a/b.json?x=1");
    assert_eq!(town.get("shop", "/admin/").body, "admin");
    assert_eq!(town.get("shop", "/.well-known/security.txt").body, "mail us");
    for hidden in
        ["/data/.key", "/data/%2Ekey", "/.trackbed/router.php", "/data/../data/.key", "/composer.json"]
    {
        let answer = town.get("shop", hidden);
        assert!(answer.status >= 400 || answer.body.starts_with("php "), "{hidden}: {answer:?}");
        assert!(!answer.body.contains("hush"), "{hidden}");
    }
}

#[test]
fn a_java_build_gives_one_jar_and_several_are_a_question() {
    if !has("javac") {
        return;
    }
    let app = App::empty("shop");
    // A stand-in for Gradle's wrapper, which would fetch Gradle: the provider sees a script that makes jars.
    let wrapper = "set -e\nmkdir -p out build/libs\njavac -d out Main.java\n\
                   jar --create --file build/libs/shop.jar --main-class Main -C out .\n\
                   jar --create --file build/libs/shop-plain.jar -C out .\n";
    app.write("build.gradle", "sourceCompatibility = '11'\n").write("gradlew", wrapper);
    app.write(
        "Main.java",
        "import com.sun.net.httpserver.HttpServer;\nimport java.net.InetSocketAddress;\n\n\
         public class Main {\n  public static void main(String[] arguments) throws Exception {\n    \
         var server = HttpServer.create(new InetSocketAddress(Integer.parseInt(System.getenv(\"PORT\"))), 0);\n    \
         server.createContext(\"/health\", exchange -> {\n      exchange.sendResponseHeaders(200, 4);\n      \
         exchange.getResponseBody().write(\"java\".getBytes());\n      exchange.close();\n    });\n    \
         server.start();\n  }\n}\n",
    );
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "java");
    app.write("gradlew", format!("{wrapper}cp build/libs/shop.jar build/libs/other.jar\n"));
    town.up_fails(&app.path(), &[], "build", &["expected one jar", "other.jar", "shop.jar"]);
    assert_eq!(town.get("shop", "/health").body, "java");
}

#[test]
fn a_deno_source_is_cached_at_build_time_and_started() {
    if !has("deno") {
        return;
    }
    let app = App::empty("shop");
    app.write("deno.jsonc", "{\n  // nothing yet\n}\n").write(
        "main.ts",
        "Deno.serve({ port: Number(Deno.env.get('PORT')), hostname: '0.0.0.0' }, () => new Response('deno'));\n",
    );
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "deno");
}

#[test]
fn a_mix_project_becomes_a_release() {
    if !has("elixir") {
        return;
    }
    let app = App::empty("shop");
    app.write(
        "mix.exs",
        "defmodule Shop.MixProject do\n  use Mix.Project\n\n  def project do\n    [\n      app: :shop,\n      \
         version: \"0.1.0\",\n      elixir: \"~> 1.14\"\n    ]\n  end\n\n  def application, do: [mod: {Shop, []}, \
         extra_applications: [:logger]]\nend\n",
    );
    app.write(
        "lib/shop.ex",
        "defmodule Shop do\n  use Application\n\n  def start(_, _) do\n    port = String.to_integer(System.fetch_env!(\"PORT\"))\n    \
         {:ok, socket} = :gen_tcp.listen(port, [:binary, packet: :line, active: false, reuseaddr: true])\n    \
         Task.start_link(fn -> serve(socket) end)\n  end\n\n  defp serve(socket) do\n    {:ok, client} = :gen_tcp.accept(socket)\n    \
         :gen_tcp.recv(client, 0)\n    :gen_tcp.send(client, \"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 6\\r\\n\\r\\nelixir\")\n    \
         :gen_tcp.close(client)\n    serve(socket)\n  end\nend\n",
    );
    let town = TestBox::start();
    assert_eq!(health(&town, &app, "shop"), "elixir");
}
