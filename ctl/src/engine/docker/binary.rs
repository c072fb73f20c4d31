//! The `bgproxy` that goes into the proxy's image: where it is found, and whether it can run there.

use std::path::{Path, PathBuf};

use crate::engine::EngineError;

/// A machine that an engine runs on, in the words of Docker and of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Arm64,
}

impl Machine {
    /// Reads the engine's word for it.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "amd64" | "x86_64" => Some(Self::X86_64),
            "arm64" | "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Docker's word, which an image's configuration carries.
    pub(super) fn docker(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn kernel(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    fn elf(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Arm64 => 183,
        }
    }
}

/// Where to look for the binary.
pub(super) struct Search<'a> {
    /// `--proxy-binary`.
    pub(super) named: Option<&'a Path>,
    /// The folder that this program is in.
    pub(super) beside: Option<PathBuf>,
    /// `PATH`.
    pub(super) path: Option<String>,
}

impl Search<'_> {
    /// Returns the binary's file: the named one, else the one beside this program, else the one in PATH.
    ///
    /// # Errors
    /// Where there is none, with the command that makes it.
    pub(super) fn find(&self, machine: Machine) -> Result<PathBuf, EngineError> {
        if let Some(named) = self.named {
            return Ok(named.to_owned());
        }
        let names = [format!("bgproxy-linux-{}", machine.docker()), format!("bgproxy-linux-{}", machine.kernel())];
        let beside = self
            .beside
            .iter()
            .flat_map(|folder| names.iter().map(String::as_str).chain(["bgproxy"]).map(move |name| folder.join(name)));
        let path = self.path.as_deref().unwrap_or_default();
        let in_path =
            std::env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join("bgproxy"));
        beside.chain(in_path).find(|file| file.is_file()).ok_or_else(|| {
            EngineError::NoProxy(format!(
                "there is no bgproxy beside bgctl or in PATH to run as the proxy\nhint: {}",
                advice()
            ))
        })
    }
}

/// Reads the binary, and makes sure that it runs in an image that holds nothing else.
///
/// # Errors
/// Where it can't be read, is no program, needs a dynamic loader, or is for another machine.
pub(super) fn load(file: &Path, machine: Machine) -> Result<Vec<u8>, EngineError> {
    let wrong = |why: String| EngineError::NoProxy(format!("{}: {why}\nhint: {}", file.display(), advice()));
    let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    check(&bytes, machine).map_err(wrong)?;
    Ok(bytes)
}

fn advice() -> &'static str {
    "`make static` makes one in target/release; then name it by --proxy-binary, or put it beside bgctl"
}

/// Reads as much of the ELF file as tells whether it is a static program for the machine.
pub(super) fn check(bytes: &[u8], machine: Machine) -> Result<(), String> {
    const PT_INTERP: u32 = 3;
    const HEADER: usize = 64;
    let half = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if bytes.len() < HEADER || !bytes.starts_with(b"\x7fELF") {
        return Err("it is not a Linux program (no ELF header)".to_owned());
    }
    // Class 2 is 64 bits, data 1 little-endian: all machines that we know.
    if bytes[4] != 2 || bytes[5] != 1 || half(18) != Some(machine.elf()) {
        return Err(format!("it is a program for another machine; the engine runs on {}", machine.kernel()));
    }
    let cut = || "it is cut short".to_owned();
    let table = bytes.get(32..40).and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?))).ok_or_else(cut)?;
    let table = usize::try_from(table).map_err(|_| cut())?;
    let size = usize::from(half(54).ok_or_else(cut)?);
    for index in 0..usize::from(half(56).ok_or_else(cut)?) {
        let at = index.checked_mul(size).and_then(|offset| table.checked_add(offset)).ok_or_else(cut)?;
        if at.checked_add(4).is_none() {
            return Err(cut());
        }
        if word(at).ok_or_else(cut)? == PT_INTERP {
            return Err("it is dynamically linked, and its image holds no loader and no library".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and one program header of the given type.
    fn elf(machine: u16, segment: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes
    }

    #[test]
    fn only_a_static_program_for_the_engines_machine_is_taken() {
        check(&elf(62, 1), Machine::X86_64).unwrap();
        check(&elf(183, 1), Machine::Arm64).unwrap();
        assert!(check(&elf(62, 3), Machine::X86_64).unwrap_err().contains("dynamically"));
        assert!(check(&elf(183, 1), Machine::X86_64).unwrap_err().contains("another machine"));
        assert!(check(b"#!/bin/sh\nexit 0\n", Machine::X86_64).unwrap_err().contains("ELF"));
    }

    #[test]
    fn a_header_that_points_nowhere_is_refused_without_a_panic() {
        let whole = elf(62, 1);
        assert!(check(&whole[..64], Machine::X86_64).is_err());
        let mut far = whole;
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(check(&far, Machine::X86_64).is_err());
    }

    #[test]
    fn this_very_test_is_dynamic_and_refused_with_the_command_that_helps() {
        let file = std::env::current_exe().unwrap();
        let machine = Machine::parse(std::env::consts::ARCH).unwrap();
        let Err(EngineError::NoProxy(text)) = load(&file, machine) else { panic!("a test is linked dynamically") };
        assert!(text.contains("make static"), "{text}");
    }

    #[test]
    fn the_named_file_comes_first_then_the_one_for_the_engines_machine() {
        let folder = tempfile::tempdir().unwrap();
        let beside = || Some(folder.path().to_owned());
        let none = Search { named: None, beside: beside(), path: None }.find(Machine::X86_64);
        assert!(matches!(none, Err(EngineError::NoProxy(text)) if text.contains("make static")));
        for name in ["bgproxy", "bgproxy-linux-arm64"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = Search { named: None, beside: beside(), path: None };
        assert_eq!(found.find(Machine::X86_64).unwrap(), folder.path().join("bgproxy"));
        assert_eq!(found.find(Machine::Arm64).unwrap(), folder.path().join("bgproxy-linux-arm64"));
        let named = Search { named: Some(Path::new("/x")), beside: beside(), path: None };
        assert_eq!(named.find(Machine::Arm64).unwrap(), Path::new("/x"));
        let in_path = Search { named: None, beside: None, path: folder.path().to_str().map(str::to_owned) };
        assert_eq!(in_path.find(Machine::X86_64).unwrap(), folder.path().join("bgproxy"));
    }
}
