//! Every integration test, in one program.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

// The bake: a new version that dies or does badly right after its flip.
mod bake;
// Own certificates, brought to the proxy.
mod brought;
// A share of visitors on the idle slot.
mod canary;
// Programs that people really use, as clients.
mod clients;
// A service that is closed on purpose: pause and maintenance.
mod closed;
// Two services under load while a schedule kills whatever there is.
mod chaos;
// Compressed answers, by real clients, and none held back.
mod compress;
// The proxy's own settings, by the admin API and by `bluegreen.toml`.
mod configured;
// `bgctl demo` to its verdict, good and bad.
mod demo;
// `bluegreen.toml` describes a deployment.
mod described;
// What stands before an application: redirects, rules, passwords, changed fields.
mod edge;
// WebSockets before it.
mod edge_websocket;
// The Docker engine by itself, on a real one: gateway, slots, exits, logs.
mod docker_engine;
// Files of folders beside the application.
mod files;
// Holding against resuming in the model checker.
mod gate_model;
// The same chaos with containers, and restarts of the daemon.
mod docker_chaos;
// What a big image costs on its way to another host.
mod docker_big_push;
// Own certificates, with the proxy in its container.
mod docker_certificates;
// What a test needs of a real engine.
mod docker_host;
// The examples for CI, run as they stand.
mod docker_ci;
// The page on a first application, followed.
mod docker_first_app;
// Moving over in place from nginx and the bash recipe.
mod docker_moving;
// The same, killed at every step.
mod docker_moving_kills;
// Podman in Docker's place.
mod docker_podman;
// The bash recipe and ours, side by side.
mod docker_recipe;
// Pushes and deployments to another host, and what keeps from it.
mod docker_remote;
// Replicas as containers.
mod docker_replicas;
// A restart of the Docker daemon, where that is allowed.
mod docker_restart;
// The main job on a real engine, under load: versions that come, fail and go back.
mod docker_switch;
// The self-test between two containers of one image.
mod docker_verify;
// Another build of the proxy in a container of its own takes over.
mod docker_upgrade;
// The recipe's uptimer as a slot of the Docker engine.
mod docker_uptimer;
// How bgproxy ends.
mod ending;
// The harness itself: its load fails where it must.
mod harness;
// What a version lacks is asked of the other one for a while.
mod old_assets;
// A version that waits for its flip, shown to whoever has a link.
mod preview;
// The real programs, as the tests start them.
mod programs;
// Requests that wait for an application to come back.
mod hold;
// Commands around a deployment, and with a service's settings.
mod hooks;
// Heads and trailers of many lines.
mod heads;
// Clients that mean harm.
mod hostile;
// Applications that speak HTTP/2: gRPC.
mod h2c;
// HTTP/2 by prior knowledge.
mod http2;
// HTTP/2 frame by frame: what no honest client sends.
mod http2_frames;
// What lives long: WebSockets, event streams and downloads over a flip.
mod long;
// Who the client is, and what passes for a WebSocket.
mod identity;
// The claim and drain word in the model checker.
mod inflight_model;
// The examples of the admin protocol's page, run.
mod protocol;
// `bgctl import-nginx` against nginx itself, and services that are addresses.
mod import_nginx;
// The journal: history, and what a kill at any step leaves.
mod journal;
// Several instances of a version: switched, scaled, killed and settled together.
mod replicas;
// A proxy that is killed, finds its state damaged or its disk full.
mod recovery;
// A second host with an engine and an sshd of its own.
mod remote_host;
// Clients that read slowly.
mod slow_readers;
// Ten minutes of everything at once.
mod soak;
// `switch --stop-first`: versions that can't run side by side.
mod stop_first;
// `bgctl switch` and its kin on plain processes: failures, locks, signals, kills.
mod switch;
// Flips under load: no failure, no request twice, no connection lost.
mod switching;
// Header fields of probes, kept by the proxy alone.
mod kept_headers;
// Clients that have to show certificates.
mod client_ca;
// A proxy that is killed at random in random calls.
mod kills;
// The limits, one by one.
mod limits;
// What is live and not there.
mod lost;
// The page of metrics against what is counted.
mod metrics;
// Options of a service.
mod options;
// HTTP/1 on the wire, bytes on both sides.
mod wire;
// Certificates that come by themselves, from a real authority.
mod acme;
// Keys that are no good any more, at that authority.
mod acme_keys;
// An authority with limits, and an opinion on when to renew.
mod acme_front;
// Hosts that a visitor names.
mod acme_on_demand;
// TLS with certificates of the file.
mod tls;
// What goes on behind a handshake: parking, flips, resumption, load balancers, RSA.
mod tls_connections;
// What scanners of TLS find.
mod tls_scanned;
// The access log and the metrics.
mod telemetry;
// Services that are switched together.
mod together;
// The live view, on a terminal.
mod top;
// Commands that messages suggest.
mod typeable;
// A successor takes over under load.
mod upgrade;
// What an old proxy leaves to its successor.
mod upgrade_duties;
// One that does not come about.
mod upgrade_failures;
// The programs that all of those start.
mod upgrade_site;
// What people forget: layers, lists, documents, bans.
mod tidy;
// `bgctl verify`: its verdict, and what is left of it when it is cut off.
mod verify;
// Who is told when the proxy acted alone.
mod webhook;
// Services without a port.
mod workers;
