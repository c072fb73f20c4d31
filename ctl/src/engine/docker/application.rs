//! A static program of this machine as an application's image, for who has no image yet: the demo.

use std::path::Path;

use super::binary::Machine;
use super::program_image::{self, Content};
use super::{Docker, binary, labels};
use crate::engine::EngineError;

/// A program that is to stand for an application.
#[derive(Debug, Clone, Copy)]
pub struct Application<'a> {
    /// The image's name, without the gateway's prefix.
    pub name: &'a str,
    /// Its tag.
    pub tag: &'a str,
    /// The program.
    pub program: &'a Path,
    /// The words that follow its name.
    pub words: &'a [String],
    /// The TCP port that it listens on.
    pub port: u16,
}

impl Docker {
    /// Makes an image of a program and returns its name; `down` removes it.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where the program can't be read, is not static or is for another machine, and where the
    /// engine does not take it.
    pub async fn make_image(&self, application: &Application<'_>) -> Result<String, EngineError> {
        let Application { name, tag, program, words, port } = *application;
        let (bytes, machine) = self.read_program(program).await?;
        let content = Content {
            machine,
            path: "/application",
            program: &bytes,
            words,
            port: Some(port),
            folders: &[],
            files: &[],
            labels: &[(labels::GATEWAY, self.names.network())],
        };
        let image = program_image::build(&self.names.application(name), Some(tag), &content)
            .map_err(|error| EngineError::Refused(format!("put the image of {name} together: {error}")))?;
        self.load_image(&image).await?;
        Ok(image.reference)
    }

    /// Makes sure that an image of a program would run on this engine.
    ///
    /// # Errors
    /// As of [`Docker::make_image`].
    pub async fn check_application(&self, program: &Path) -> Result<(), EngineError> {
        self.read_program(program).await.map(drop)
    }

    async fn read_program(&self, program: &Path) -> Result<(Vec<u8>, Machine), EngineError> {
        let wrong = |why: String| EngineError::Refused(format!("{}: {why}", program.display()));
        let machine = self.machine().await?;
        let bytes = tokio::fs::read(program).await.map_err(|error| wrong(error.to_string()))?;
        binary::check(&bytes, machine).map_err(wrong)?;
        Ok((bytes, machine))
    }

    /// Makes sure that there is a `bgproxy` that this engine could run.
    ///
    /// # Errors
    /// [`EngineError::NoProxy`] with the command that makes one.
    pub async fn check_proxy_binary(&self, named: Option<&Path>) -> Result<(), EngineError> {
        self.proxy_image(named, Vec::new()).await.map(drop)
    }
}
