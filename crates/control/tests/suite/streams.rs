//! Faults of event streams: told once for each release, with their likely cause, and who holds a volume.

use std::time::Duration;

use trackbed_core::deployment::{Deployment, EventKind};
use trackbed_core::ports::Suspect;
use trackbed_core::route::StreamFault;
use trackbed_testkit::App;

use crate::rig::Rig;

/// Longer than the edge is left alone.
const A_LOOK: Duration = Duration::from_millis(2500);

async fn warnings(rig: &Rig, deployment: &Deployment) -> Vec<String> {
    let events = rig.events(&deployment.id).await.into_iter();
    events.filter(|event| event.kind == EventKind::Warning).map(|event| event.message).collect()
}

async fn shown(rig: &Rig) -> Vec<String> {
    rig.control.status(rig.service().await).await.unwrap().warnings
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_told_once_for_each_release() {
    let mut rig = Rig::new().await;
    let first = rig.deploy_well(&App::new("one")).await;
    let service = rig.service().await.id;
    rig.pass_time(A_LOOK).await;
    rig.world.set_suspects(vec![Suspect {
        place: "main.py:7".into(),
        what: "app.add_middleware(GZipMiddleware)".into(),
        mend: "take it out".into(),
    }]);
    for _ in 0..3 {
        rig.world.notice(&service, StreamFault::Compressed, "/chat");
        rig.pass_time(A_LOOK).await;
    }
    let told = warnings(&rig, &first).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("/chat") && told[0].contains("main.py:7 `app.add_middleware"), "{told:?}");
    assert_eq!(shown(&rig).await, told);
    // Another fault is told, too; and a new control plane tells nothing twice.
    rig.world.notice(&service, StreamFault::Buffered, "/other");
    rig.pass_time(A_LOOK).await;
    assert_eq!(warnings(&rig, &first).await.len(), 2);
    rig.crash().await;
    rig.pass_time(A_LOOK).await;
    rig.world.notice(&service, StreamFault::Compressed, "/chat");
    rig.pass_time(A_LOOK).await;
    assert_eq!(shown(&rig).await.len(), 2);

    // What the release before did is not the fault of the next, until it does it, too.
    let second = rig.deploy_well(&App::new("two")).await;
    rig.pass_time(A_LOOK).await;
    assert_eq!(shown(&rig).await, Vec::<String>::new());
    rig.world.notice(&service, StreamFault::Compressed, "/chat");
    rig.pass_time(A_LOOK).await;
    assert_eq!(warnings(&rig, &second).await, shown(&rig).await);
    assert_eq!(shown(&rig).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_volume_names_its_holder_and_counts_its_holders() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let deployment = rig.deploy_well(&App::new("two").with_volume()).await;
    let service = rig.service().await;
    let volume = rig.control.volumes(&service).await.unwrap().remove(0);
    let lease = rig.control.lease(&service, &volume).await.unwrap();
    assert_eq!((lease.fence, lease.holders.len()), (2, 1));
    let holder = &lease.holders[0];
    assert_eq!(holder.instance, Some(rig.live().await.1));
    assert_eq!((holder.release.as_deref(), holder.deployment.as_ref()), (Some("v2"), Some(&deployment.id)));
    rig.down().await;
    rig.settle().await;
    let lease = rig.control.lease(&service, &volume).await.unwrap();
    assert_eq!((lease.fence, lease.holders.len()), (2, 0));
}
