//! Compression that every engine reads: gzip, a member for each megabyte.
//!
//! A stream of members is one stream to whoever reads it (RFC 1952, section 2.2). Members of this size let the quickest library be
//! used, which takes its input whole, and cost next to nothing in size.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor};

/// The input of one member.
const MEMBER: usize = 1 << 20;

/// A writer that compresses.
pub(super) struct Gzip<W> {
    out: W,
    filling: Vec<u8>,
    compressed: Vec<u8>,
    compressor: Compressor,
}

impl<W: Write> Gzip<W> {
    pub(super) fn new(out: W) -> Self {
        // Its default is gzip's own level: what the network saves is worth more than what it costs here.
        let compressor = Compressor::new(CompressionLvl::default());
        Self { out, filling: Vec::with_capacity(MEMBER), compressed: Vec::new(), compressor }
    }

    /// Writes what is left, and returns where it went.
    ///
    /// # Errors
    /// Those of the writer below.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_member()?;
        Ok(self.out)
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        self.compressed.resize(self.compressor.gzip_compress_bound(self.filling.len()), 0);
        let size = self.compressor.gzip_compress(&self.filling, &mut self.compressed).map_err(io::Error::other)?;
        self.filling.clear();
        self.out.write_all(&self.compressed[..size])
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MEMBER - self.filling.len());
        self.filling.extend_from_slice(&bytes[..count]);
        if self.filling.len() == MEMBER {
            self.end_member()?;
        }
        Ok(count)
    }

    /// Keeps what is not a whole member yet: an end of one in between would only make it larger.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn gzip_reads_what_is_written_and_it_is_smaller() {
        let text: Vec<u8> = (0..400_000_u32).flat_map(|number| format!("{number} ").into_bytes()).collect();
        assert!(text.len() > 2 * MEMBER);
        let mut gzip = Gzip::new(Vec::new());
        gzip.write_all(&text).unwrap();
        let compressed = gzip.finish().unwrap();
        assert!(compressed.len() < text.len() / 2);
        let mut child = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let fed = std::thread::spawn(move || input.write_all(&compressed));
        let output = child.wait_with_output().unwrap();
        fed.join().unwrap().unwrap();
        assert!(output.status.success() && output.stdout == text);
    }
}
