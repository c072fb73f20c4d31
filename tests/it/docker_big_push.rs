//! What a big image costs on its way to another host: time in parts and in one archive, and memory whatever the image.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::{Ended, Started, measured};

use crate::docker_host::{docker, gateway};
use crate::docker_remote::{import, shell, with_noise};
use crate::remote_host::remote_host;

/// No push takes more of the memory, whatever the image.
const MEMORY: u64 = 64 << 20;
/// How often the memory is looked at; the kernel remembers the most.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for the end of a run, and returns the most memory that it had at once.
async fn end_with_peak(mut started: Started) -> (Ended, u64) {
    let status = format!("/proc/{}/status", started.pid().as_raw_nonzero());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kilobytes: u64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
        peak = peak.max(kilobytes << 10);
        if started.ends_within(LOOK).await {
            return (started.end().await, peak);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_a_big_image_goes_in_parts_at_the_price_of_one_archive_and_in_little_memory() {
    const TEST: &str = "docker_a_big_image";
    /// Of each of four layers, which can't be compressed.
    const LAYER: u64 = 66 << 20;
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let name = |number: u32| gateway.named(&format!("parts:{number}"));
    import(&name(0), LAYER, "amd64");
    (1..4).for_each(|number| with_noise(&name(number - 1), &name(number), LAYER));
    let one = gateway.named("one:1");
    import(&one, 4 * LAYER, "amd64");
    // A layer of 1 GiB, most of which is nothing: how much is kept of it does not depend on what it is.
    let huge = gateway.named("huge:1");
    let folder = tempfile::tempdir().unwrap();
    shell(&format!("truncate -s 1G '{0}/data' && tar -C '{0}' -c . | docker import - {huge}", folder.path().display()));

    let push = async |image: &str| {
        let began = Instant::now();
        let (pushed, peak) = end_with_peak(host.start(&["push", "production-server", image])).await;
        let took = began.elapsed();
        assert_eq!(pushed.code, Some(0), "{}", pushed.talk);
        let report = pushed.report();
        assert_eq!(report["layers_present"], 0, "{report}");
        assert!(peak > 0 && peak < MEMORY, "{image}: {peak} bytes of memory");
        (took, report["bytes"].as_u64().unwrap(), peak >> 20)
    };
    let whole = push(&one).await;
    let parts = push(&name(3)).await;
    let giant = push(&huge).await;
    // What everybody does, on the same way: the first push of an image of its own, so that nothing of it is there.
    let other = gateway.named("one:2");
    import(&other, 4 * LAYER, "amd64");
    let (began, ssh) = (Instant::now(), host.ssh_command());
    let piped = Command::new("sh").args(["-c", &format!("docker save {other} | gzip | {ssh} docker load")]).output();
    let (piped, pipe_took) = (piped.unwrap(), began.elapsed());
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    measured(
        TEST,
        &format!(
            "264 MiB: in four parts {:?}, {} bytes, {} MiB of memory; in one archive {:?}, {} bytes, {} MiB; \
             save | gzip | ssh load {pipe_took:?}; a layer of 1 GiB {:?}, {} MiB",
            parts.0, parts.1, parts.2, whole.0, whole.1, whole.2, giant.0, giant.2
        ),
    );
    // Each part waits for the engine before the next begins; that may cost something, but not a push more.
    assert!(parts.0 < whole.0 * 2 + Duration::from_secs(5), "{:?} in parts, {:?} in one archive", parts.0, whole.0);
    for image in [one, other, huge, name(0), name(1), name(2), name(3)] {
        drop(docker(&["rmi", "-f", &image]));
    }
}
