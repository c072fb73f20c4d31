//! The proxy's image: the static `bgproxy`, its own file, and the folders that it writes to.

use super::binary::Machine;
use super::program_image::{self, Folder, ProgramImage};

/// The program's path in the image.
pub(super) const PROGRAM: &str = "/bgproxy";

const FOLDERS: [Folder; 7] = [
    Folder { path: "etc/", is_own: false },
    Folder { path: "etc/bluegreen/", is_own: false },
    Folder { path: "run/", is_own: false },
    Folder { path: "var/", is_own: false },
    Folder { path: "var/lib/", is_own: false },
    Folder { path: "run/bluegreen/", is_own: true },
    Folder { path: "var/lib/bluegreen/", is_own: true },
];

/// What goes into the image.
pub(super) struct Content<'a> {
    /// The checked binary.
    pub(super) program: &'a [u8],
    pub(super) machine: Machine,
    /// The networks whose forwarded headers the proxy believes.
    pub(super) trusted_proxies: &'a [String],
}

/// Puts the image together.
///
/// # Errors
/// As of [`program_image::build`].
pub(super) fn build(name: &str, content: &Content<'_>) -> std::io::Result<ProgramImage> {
    let Content { program, machine, trusted_proxies } = *content;
    let file = config_file(trusted_proxies);
    let content = program_image::Content {
        machine,
        path: PROGRAM,
        program,
        words: &[],
        port: None,
        folders: &FOLDERS,
        files: &[(config::paths::PROXY_CONFIG, file.as_bytes())],
        labels: &[],
    };
    program_image::build(name, None, &content)
}

/// Writes the proxy's own file, `bgproxy.toml`.
fn config_file(trusted_proxies: &[String]) -> String {
    let mut file = "# Written by `bgctl up`.\n".to_owned();
    if !trusted_proxies.is_empty() {
        // Networks are checked before they come here, so there is nothing in them to escape.
        file.push_str(&format!("trusted_proxies = [\"{}\"]\n", trusted_proxies.join("\", \"")));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_networks_stand_in_the_proxys_own_file_and_make_another_image() {
        let made = |trusted_proxies: &[String]| {
            build("bluegreen-proxy", &Content { program: b"program", machine: Machine::X86_64, trusted_proxies })
                .unwrap()
        };
        let networks = ["10.0.0.0/8".to_owned(), "private".to_owned()];
        assert_ne!(made(&[]).reference, made(&networks).reference);
        assert!(config_file(&networks).ends_with("trusted_proxies = [\"10.0.0.0/8\", \"private\"]\n"));
    }
}
