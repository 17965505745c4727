//! Data outside the volumes: seen, told, in the way of the next deployment, and kept for a while.

use trackbed_control::DeploymentWish;
use trackbed_core::deployment::{DeploymentState, EventKind, Step};
use trackbed_core::ports::StrayFile;
use trackbed_testkit::App;

use crate::data_rig::MINUTE;
use crate::rig::{Rig, on_paused_time};

fn careless(name: &str) -> App {
    let mut app = App::new(name);
    app.strays = vec![
        StrayFile {
            path: "/app/cache.txt".into(),
            host_path: "/instances/x/upper/cache.txt".into(),
            size_bytes: 5_000_000,
            is_database: false,
        },
        StrayFile {
            path: "/app/ba.db".into(),
            host_path: "/instances/x/upper/ba.db".into(),
            size_bytes: 1_200_000,
            is_database: true,
        },
    ];
    app
}

#[test]
fn a_database_outside_the_volumes_is_a_warning_with_its_mend() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&careless("one").with_volume()).await;
        rig.pass_time(2 * MINUTE).await;
        let warnings = rig.warnings().await;
        let told = warnings.iter().find(|text| text.contains("/app/ba.db")).expect("it is told");
        assert!(told.contains("1.2 MB") && told.contains("trackbed volume adopt /app/ba.db"), "{told}");
        assert!(!warnings.iter().any(|text| text.contains("cache.txt")), "{warnings:?}");
    });
}

#[test]
fn it_is_in_the_way_of_the_next_deployment_before_anything_is_touched() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&careless("one").with_volume()).await;
        let served = rig.served().await;
        let refused = rig.deploy(&App::new("two").with_volume()).await;
        assert_eq!(refused.state, DeploymentState::Failed);
        let failure = refused.failure.unwrap();
        assert_eq!(failure.stage, Step::Check);
        assert!(failure.reason.contains("/app/ba.db (1.2 MB)"), "{}", failure.reason);
        let hint = failure.hint.unwrap();
        assert!(hint.contains("trackbed volume adopt /app/ba.db") && hint.contains("--allow-data-outside"));
        assert_eq!(rig.served().await, served);
        rig.settle().await;
    });
}

#[test]
fn its_owner_may_leave_it_behind_once() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&careless("one").with_volume()).await;
        let allowed = rig.up_allowed(&careless("two").with_volume()).await;
        assert_eq!(allowed.state, DeploymentState::Success, "{:?}", allowed.failure);
        let events = rig.events(&allowed.id).await;
        let warned = |event: &&trackbed_core::deployment::Event| {
            event.kind == EventKind::Warning && event.message.contains("/instances/x/upper/ba.db")
        };
        assert!(events.iter().any(|event| warned(&event)), "it is told where it lies now: {events:?}");
        let again = rig.wish("web", DeploymentWish::Redeploy).await.unwrap().id;
        assert_eq!(rig.finish(&again).await.state, DeploymentState::Failed, "the leave was for once");
    });
}

#[test]
fn of_two_databases_one_can_be_adopted_and_the_place_of_the_other_is_told() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        let mut app = careless("one").with_volume();
        app.strays.push(StrayFile {
            path: "/app/other.db".into(),
            host_path: "/instances/x/upper/other.db".into(),
            size_bytes: 10,
            is_database: true,
        });
        rig.deploy_well(&app).await;
        let wish = DeploymentWish::Adopt { paths: vec!["/app/ba.db".into()], volume: None };
        let id = rig.wish("web", wish).await.unwrap().id;
        let adopted = rig.finish(&id).await;
        assert_eq!(adopted.state, DeploymentState::Success, "{:?}", adopted.failure);
        let events = rig.events(&id).await;
        let told = events.iter().any(|event| event.message.contains("/instances/x/upper/other.db"));
        assert!(told, "{events:?}");
    });
}

#[test]
fn a_service_without_a_volume_is_only_warned() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&careless("one")).await;
        let second = rig.deploy_well(&App::new("two")).await;
        let events = rig.events(&second.id).await;
        assert!(events.iter().any(|event| event.message.contains("/app/ba.db")), "{events:?}");
    });
}

#[test]
fn a_rollback_is_never_in_its_way() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&App::new("one").with_volume()).await;
        rig.deploy_well(&careless("two").with_volume()).await;
        let wish = DeploymentWish::Rollback { version: None, with_data: false };
        let id = rig.wish("web", wish).await.unwrap().id;
        assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    });
}

#[test]
fn what_a_run_left_is_kept_until_the_next_deployment_but_one() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        rig.deploy_well(&careless("one")).await;
        let (_, first) = rig.live().await;
        rig.deploy_well(&App::new("two")).await;
        // Many failed attempts must not push it out.
        for attempt in 0..8 {
            let app = App::new(&format!("bad {attempt}"))
                .ends(std::time::Duration::from_millis(10), trackbed_core::instance::Exit::Code { code: 1 });
            rig.deploy(&app).await;
        }
        rig.pass_time(3 * MINUTE).await;
        assert!(rig.world.instance(&first).is_some());
        for number in 3..5 {
            rig.deploy_well(&App::new(&format!("release {number}"))).await;
        }
        rig.pass_time(3 * MINUTE).await;
        assert!(rig.world.instance(&first).is_none());
    });
}

#[test]
fn a_release_that_crashes_again_and_again_keeps_the_run_in_which_it_wrote() {
    on_paused_time(async {
        let mut rig = Rig::new().await;
        let mut app = careless("one");
        app = app.ends_at_first(9, 30 * MINUTE / 60, trackbed_core::instance::Exit::Code { code: 1 });
        rig.deploy_well(&app).await;
        let (_, first) = rig.live().await;
        rig.pass_time(20 * MINUTE).await;
        let (_, last) = rig.live().await;
        assert_ne!(first, last);
        assert!(rig.world.instance(&first).is_some());
    });
}
