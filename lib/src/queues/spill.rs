//! The file of the `Spill` policy: a queue on disk. The pump reads and writes it on blocking threads.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    future::Future,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::task::JoinHandle;

use crate::{
    defaults::{IDLE_QUEUE_PLACES, SPILL_CHUNK_BYTES},
    messages::{Gap, Incoming, Message},
    queues::items::{Unpacked, push_gap_unpacked},
    settings::Spill,
};

/// Before each payload: one byte for the kind and eight for the length. Four bytes would not hold
/// every length, because `max_message_bytes` may be above 4 GiB.
const HEADER_BYTES: usize = 9;
const KIND_BINARY: u8 = 0;
const KIND_TEXT: u8 = 1;
/// The place of a gap. The gap itself is kept in memory.
const KIND_GAP: u8 = 2;

/// A ring of `capacity` bytes in a nameless file. `head` and `tail` count all bytes read and written
/// since the ring was last empty.
struct Disk {
    file: File,
    capacity: u64,
    head: u64,
    tail: u64,
}

#[cfg(feature = "spill")]
fn nameless_file(directory: Option<PathBuf>) -> io::Result<File> {
    match directory {
        Some(directory) => tempfile::tempfile_in(directory),
        None => tempfile::tempfile(),
    }
}

/// Without the feature no application can ask for a file.
#[cfg(not(feature = "spill"))]
fn nameless_file(_: Option<PathBuf>) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Disk {
    fn open(directory: Option<PathBuf>, capacity: u64) -> io::Result<Disk> {
        Ok(Disk {
            file: nameless_file(directory)?,
            capacity,
            head: 0,
            tail: 0,
        })
    }

    /// How many of the `len` bytes from `position` on lie before the end of the ring.
    fn first_part(&self, position: u64, len: usize) -> usize {
        (self.capacity - position % self.capacity).min(len as u64) as usize
    }

    fn seek(&mut self, position: u64) -> io::Result<()> {
        self.file
            .seek(SeekFrom::Start(position % self.capacity))
            .map(drop)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at(self.first_part(self.tail, bytes.len()));
        self.seek(self.tail)?;
        self.file.write_all(first)?;
        if !second.is_empty() {
            self.seek(0)?;
            self.file.write_all(second)?;
        }
        self.tail += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let len = (self.tail - self.head).min(SPILL_CHUNK_BYTES as u64) as usize;
        let mut bytes = vec![0; len];
        let (first, second) = bytes.split_at_mut(self.first_part(self.head, len));
        self.seek(self.head)?;
        self.file.read_exact(first)?;
        if !second.is_empty() {
            self.seek(0)?;
            self.file.read_exact(second)?;
        }
        self.head += len as u64;
        if self.head == self.tail {
            self.file.set_len(0)?;
            (self.head, self.tail) = (0, 0);
        }
        Ok(bytes)
    }
}

enum Outcome {
    Wrote(io::Result<()>),
    Read(io::Result<Vec<u8>>),
}

/// The result of a finished operation, for the pump.
#[derive(Debug)]
pub(crate) enum SpillProgress {
    /// Messages were written to the file, with so many bytes of payload.
    Spilled { messages: u64, bytes: u64 },
    /// Messages were read back. They are in `ready`.
    Loaded,
    /// The file can no longer be used. `lost` messages in it cannot be read back; a gap marks them.
    Failed { why: String, lost: u64 },
}

/// At most one operation runs at a time, on the runtime's blocking threads.
pub(crate) struct SpillFile {
    config: Spill,
    disk: Option<Disk>,
    operation: Option<JoinHandle<(Option<Disk>, Outcome)>>,
    /// What the present operation writes.
    writing: Unpacked,
    /// Bytes in the file.
    stored: u64,
    /// Messages and gaps in the file.
    entries: u64,
    /// The gaps in the file, in order.
    gaps: Unpacked,
    /// The beginning of an entry whose end is not read yet.
    partial: BytesMut,
    failed: bool,
    /// The application was told that the file is full or failed. It is told again only after the
    /// file was empty.
    told: bool,
    /// Entries that were read back and wait for room in the inbox.
    pub(crate) ready: Unpacked,
    /// What comes after everything in the file.
    pub(crate) behind: Unpacked,
}

impl SpillFile {
    pub(crate) fn new(config: Spill) -> SpillFile {
        SpillFile {
            config,
            disk: None,
            operation: None,
            writing: Unpacked::new(),
            stored: 0,
            entries: 0,
            gaps: Unpacked::new(),
            partial: BytesMut::new(),
            failed: false,
            told: false,
            ready: Unpacked::new(),
            behind: Unpacked::new(),
        }
    }

    /// The file is empty: frees memory that the queues grew by.
    pub(crate) fn shrink(&mut self) {
        for batch in [&mut self.writing, &mut self.ready, &mut self.behind] {
            if batch.capacity() > IDLE_QUEUE_PLACES {
                batch.shrink_to(IDLE_QUEUE_PLACES);
            }
        }
        self.partial = BytesMut::new();
    }

    /// Whether something comes before `behind`.
    pub(crate) fn holds_any(&self) -> bool {
        self.entries > 0 || self.is_busy() || !self.ready.is_empty()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.operation.is_some()
    }

    /// Whether messages wait in `behind`. Gaps do not count.
    pub(crate) fn has_waiting(&self) -> bool {
        let is_message = |item: &Incoming| matches!(item, Incoming::Message(_));
        self.behind.iter().any(is_message)
    }

    /// Whether the file holds entries that can be read back.
    pub(crate) fn has_stored(&self) -> bool {
        self.entries > 0 && self.disk.is_some()
    }

    /// Entries and bytes in the file.
    pub(crate) fn stored(&self) -> (u64, u64) {
        (self.entries, self.stored)
    }

    /// Starts to write as much of `behind` as fits into the file. Must not be called while busy.
    /// `false`: nothing fits, or the file has failed.
    pub(crate) fn write(&mut self) -> bool {
        if self.entries == 0 {
            self.told = self.failed;
        }
        let mut free = self.config.max_bytes - self.stored;
        while let Some(item) = self.behind.front().filter(|_| !self.failed) {
            let Some(rest) = free.checked_sub(encoded_len(item)) else {
                break;
            };
            free = rest;
            self.writing.extend(self.behind.pop_front());
        }
        if self.writing.is_empty() {
            return false;
        }
        let disk = self.disk.take();
        let (directory, capacity) = (self.config.directory.clone(), self.config.max_bytes);
        let bytes = encode(&self.writing);
        self.operation = Some(tokio::task::spawn_blocking(move || {
            let mut disk = match disk.map_or_else(|| Disk::open(directory, capacity), Ok) {
                Ok(disk) => disk,
                Err(error) => return (None, Outcome::Wrote(Err(error))),
            };
            let result = disk.write(&bytes);
            (Some(disk), Outcome::Wrote(result))
        }));
        true
    }

    /// Why the file takes no more, if the application was not told yet.
    pub(crate) fn news_of_full(&mut self) -> Option<String> {
        let news = !std::mem::replace(&mut self.told, true);
        news.then(|| {
            let (stored, max) = (self.stored, self.config.max_bytes);
            format!("the spill file is full: {stored} of {max} bytes")
        })
    }

    /// Replaces the messages in `behind` by gaps. Returns how many they were, and their bytes.
    pub(crate) fn drop_behind(&mut self) -> (u64, u64) {
        let (mut count, mut total) = (0, 0);
        for item in std::mem::take(&mut self.behind) {
            let gap = match item {
                Incoming::Gap(gap) => gap,
                Incoming::Message(message) => {
                    let (messages, bytes) = (1, message.len() as u64);
                    count += messages;
                    total += bytes;
                    Gap::Dropped { messages, bytes }
                }
            };
            push_gap_unpacked(&mut self.behind, gap);
        }
        (count, total)
    }

    /// Starts to read the next chunk. Must not be called while busy.
    pub(crate) fn read(&mut self) {
        let Some(mut disk) = self.disk.take() else {
            return;
        };
        self.operation = Some(tokio::task::spawn_blocking(move || {
            let result = disk.read();
            (Some(disk), Outcome::Read(result))
        }));
    }

    /// The result of the running operation. Pending if there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SpillProgress> {
        let Some(operation) = &mut self.operation else {
            return Poll::Pending;
        };
        let result = ready!(Pin::new(operation).poll(cx));
        self.operation = None;
        Poll::Ready(match result {
            Ok((disk, Outcome::Wrote(result))) => {
                self.disk = disk;
                self.wrote(result)
            }
            Ok((disk, Outcome::Read(Ok(bytes)))) => {
                self.disk = disk;
                self.stored -= bytes.len() as u64;
                self.partial.extend_from_slice(&bytes);
                self.cut();
                SpillProgress::Loaded
            }
            Ok((_, Outcome::Read(Err(error)))) => self.lose(format!("cannot be read: {error}")),
            Err(error) => self.lose(format!("was abandoned: {error}")),
        })
    }

    fn wrote(&mut self, result: io::Result<()>) -> SpillProgress {
        if let Err(error) = result {
            self.put_before_behind(Unpacked::new());
            return self.fail(format!("cannot be written: {error}"), 0);
        }
        self.stored += self.writing.iter().map(encoded_len).sum::<u64>();
        self.entries += self.writing.len() as u64;
        let (mut messages, mut bytes) = (0, 0);
        for item in self.writing.drain(..) {
            match item {
                Incoming::Message(message) => {
                    messages += 1;
                    bytes += message.len() as u64;
                }
                gap => self.gaps.push_back(gap),
            }
        }
        SpillProgress::Spilled { messages, bytes }
    }

    /// Gives up the file with everything in it, and marks what is lost by gaps.
    fn lose(&mut self, why: String) -> SpillProgress {
        let lost = self.entries - self.gaps.len() as u64;
        let encoded = self.stored + self.partial.len() as u64;
        let mut marks = Unpacked::new();
        if lost > 0 {
            let gap = Gap::Dropped {
                messages: lost,
                bytes: encoded - self.entries * HEADER_BYTES as u64,
            };
            push_gap_unpacked(&mut marks, gap);
        }
        marks.append(&mut self.gaps);
        self.put_before_behind(marks);
        (self.entries, self.stored) = (0, 0);
        self.partial = BytesMut::new();
        self.fail(why, lost)
    }

    /// Puts `first`, and then what was to be written, before the rest of `behind`.
    fn put_before_behind(&mut self, mut first: Unpacked) {
        first.append(&mut self.writing);
        first.append(&mut self.behind);
        self.behind = first;
    }

    fn fail(&mut self, why: String, lost: u64) -> SpillProgress {
        (self.failed, self.told) = (true, true);
        let why = format!("the spill file {why}");
        SpillProgress::Failed { why, lost }
    }

    /// Decodes the whole entries of what was read.
    fn cut(&mut self) {
        while let Some(header) = self.partial.first_chunk::<HEADER_BYTES>() {
            let [kind, len @ ..] = *header;
            let len = u64::from_be_bytes(len) as usize;
            if self.partial.len() < HEADER_BYTES + len {
                return;
            }
            self.partial.advance(HEADER_BYTES);
            let item = match kind {
                KIND_GAP => self.gaps.pop_front(),
                kind => {
                    let message = Message::copied(kind == KIND_TEXT, &self.partial[..len]);
                    Some(Incoming::Message(message))
                }
            };
            self.partial.advance(len);
            self.ready.extend(item);
            self.entries -= 1;
        }
    }
}

fn encoded_len(item: &Incoming) -> u64 {
    let payload = match item {
        Incoming::Message(message) => message.len(),
        Incoming::Gap(_) => 0,
    };
    (HEADER_BYTES + payload) as u64
}

fn encode(batch: &Unpacked) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.iter().map(encoded_len).sum::<u64>() as usize);
    for item in batch {
        let (kind, payload) = match item {
            Incoming::Message(message) if message.is_text() => (KIND_TEXT, message.as_bytes()),
            Incoming::Message(message) => (KIND_BINARY, message.as_bytes()),
            Incoming::Gap(_) => (KIND_GAP, &[][..]),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}
