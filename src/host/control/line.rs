//! Lines over a stream, bounded in length. The caller bounds the time.

use std::io;
use tokio::net::UnixStream;

/// What has been read and not been handed out yet.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    length_max: usize,
}

impl Lines {
    /// No line may have more bytes than this.
    pub(super) fn new(length_max: usize) -> Self {
        Self { buffer: Vec::new(), length_max }
    }

    /// The next line without its end; none where the other side closes before one. Cancel-safe.
    ///
    /// # Errors
    /// What read(2) says, and `InvalidData` for a line that is too long.
    pub(super) async fn next(&mut self, stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.buffer.iter().skip(seen).position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(seen + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return if line.len() > self.length_max { Err(too_long()) } else { Ok(Some(line)) };
            }
            if self.buffer.len() > self.length_max {
                return Err(too_long());
            }
            seen = self.buffer.len();
            let mut chunk = [0; 1024];
            stream.readable().await?;
            match stream.try_read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the line is too long")
}

/// Writes all of it.
pub(super) async fn write(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the other side closes, or writes when it has nothing more to say.
pub(super) async fn hung_up(stream: &UnixStream) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}
