//! The first thing that must work.

use trackbed_tests::{App, TestBox};

#[test]
fn a_folder_becomes_a_live_url() {
    let town = TestBox::start();
    let app = App::plain("hello");
    let up = town.up_ok(&app.path());
    assert_eq!(up.text("release"), "v1");
    assert_eq!(town.get("hello", "/version").body, "one");
}
