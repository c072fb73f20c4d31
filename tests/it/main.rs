//! it.

// A real engine, and what a deployment needs of it.
mod docker_engine;
mod docker_host;
