//! The file of the `Spill` policy: a queue on disk, read and written off the pump's task.

use std::{
    collections::VecDeque,
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
    defaults::SPILL_CHUNK_BYTES,
    message::{Incoming, Message},
    options::Spill,
};

/// One byte of kind and four of length stand before each payload.
const HEADER_BYTES: usize = 5;
const KIND_BINARY: u8 = 0;
const KIND_TEXT: u8 = 1;
/// A gap stands here; what it says is kept in memory.
const KIND_GAP: u8 = 2;

/// A ring of `capacity` bytes in a nameless file. `head` and `tail` count for ever.
struct Disk {
    file: File,
    capacity: u64,
    head: u64,
    tail: u64,
}

impl Disk {
    fn open(directory: Option<PathBuf>, capacity: u64) -> io::Result<Disk> {
        let file = match directory {
            Some(directory) => tempfile::tempfile_in(directory)?,
            None => tempfile::tempfile()?,
        };
        Ok(Disk {
            file,
            capacity,
            head: 0,
            tail: 0,
        })
    }

    /// How much of `len` bytes from `position` on lies before the ring's end.
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

/// What a finished operation tells the pump.
#[derive(Debug)]
pub(crate) enum Progress {
    /// So many messages went to the file, with so many bytes of payload.
    Spilled { messages: u64, bytes: u64 },
    /// Messages came back; they are in `ready`.
    Loaded,
    /// The file is of no more use; a batch that it did not take is in `refused`. `lost` messages
    /// that it held cannot be read back.
    Failed { why: String, lost: u64 },
}

/// At most one operation runs at a time, on the runtime's blocking threads.
pub(crate) struct SpillFile {
    config: Spill,
    disk: Option<Disk>,
    operation: Option<JoinHandle<(Option<Disk>, Outcome)>>,
    writing: VecDeque<Incoming>,
    /// Bytes and entries in the file, and what stands at the entries that are gaps.
    stored: u64,
    entries: u64,
    gaps: VecDeque<Incoming>,
    /// What was read of an entry whose end is not read yet.
    partial: BytesMut,
    failed: bool,
    /// Entries read back, waiting for room in the inbox.
    pub(crate) ready: VecDeque<Incoming>,
    /// Entries that the file could not take; they come after everything in it.
    pub(crate) refused: VecDeque<Incoming>,
}

impl SpillFile {
    pub(crate) fn new(config: Spill) -> SpillFile {
        SpillFile {
            config,
            disk: None,
            operation: None,
            writing: VecDeque::new(),
            stored: 0,
            entries: 0,
            gaps: VecDeque::new(),
            partial: BytesMut::new(),
            failed: false,
            ready: VecDeque::new(),
            refused: VecDeque::new(),
        }
    }

    /// Whether something is here, so that what comes later must go behind it.
    pub(crate) fn is_active(&self) -> bool {
        self.entries > 0 || self.is_busy() || !self.ready.is_empty() || !self.refused.is_empty()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.operation.is_some()
    }

    /// Whether the batch fits into what is left of the file.
    pub(crate) fn can_take(&self, batch: &VecDeque<Incoming>) -> bool {
        !self.failed
            && self.refused.is_empty()
            && self.stored + encoded_len(batch) <= self.config.max_bytes
    }

    /// Whether the file holds entries that can be read back.
    pub(crate) fn has_stored(&self) -> bool {
        self.entries > 0 && self.disk.is_some()
    }

    /// Entries and bytes in the file.
    pub(crate) fn stored(&self) -> (u64, u64) {
        (self.entries, self.stored)
    }

    /// Starts to write the batch. Not while busy.
    pub(crate) fn write(&mut self, batch: &mut VecDeque<Incoming>) {
        let disk = self.disk.take();
        let (directory, capacity) = (self.config.directory.clone(), self.config.max_bytes);
        let bytes = encode(batch);
        std::mem::swap(&mut self.writing, batch);
        self.operation = Some(tokio::task::spawn_blocking(move || {
            let mut disk = match disk.map_or_else(|| Disk::open(directory, capacity), Ok) {
                Ok(disk) => disk,
                Err(error) => return (None, Outcome::Wrote(Err(error))),
            };
            let result = disk.write(&bytes);
            (Some(disk), Outcome::Wrote(result))
        }));
    }

    /// Starts to read the next chunk. Not while busy.
    pub(crate) fn read(&mut self) {
        let Some(mut disk) = self.disk.take() else {
            return;
        };
        self.operation = Some(tokio::task::spawn_blocking(move || {
            let result = disk.read();
            (Some(disk), Outcome::Read(result))
        }));
    }

    /// Drives the operation that runs, if one does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
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
                Progress::Loaded
            }
            Ok((_, Outcome::Read(Err(error)))) => self.lose(format!("cannot be read: {error}")),
            Err(error) => self.lose(format!("was abandoned: {error}")),
        })
    }

    fn wrote(&mut self, result: io::Result<()>) -> Progress {
        if let Err(error) = result {
            self.failed = true;
            std::mem::swap(&mut self.refused, &mut self.writing);
            let why = format!("the spill file cannot be written: {error}");
            return Progress::Failed { why, lost: 0 };
        }
        self.stored += encoded_len(&self.writing);
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
        Progress::Spilled { messages, bytes }
    }

    /// The file is gone, with what it held.
    fn lose(&mut self, why: String) -> Progress {
        self.failed = true;
        let lost = self.entries - self.gaps.len() as u64;
        (self.entries, self.stored) = (0, 0);
        self.refused.append(&mut self.gaps);
        self.refused.append(&mut self.writing);
        Progress::Failed {
            why: format!("the spill file {why}"),
            lost,
        }
    }

    /// Cuts whole entries out of what was read.
    fn cut(&mut self) {
        while let Some(header) = self.partial.first_chunk::<HEADER_BYTES>() {
            let [kind, len @ ..] = *header;
            let len = u32::from_be_bytes(len) as usize;
            if self.partial.len() < HEADER_BYTES + len {
                return;
            }
            self.partial.advance(HEADER_BYTES);
            let payload = self.partial.split_to(len).freeze();
            let item = match kind {
                KIND_GAP => self.gaps.pop_front(),
                kind => Some(Incoming::Message(Message::received(
                    kind == KIND_TEXT,
                    payload,
                ))),
            };
            self.ready.extend(item);
            self.entries -= 1;
        }
    }
}

fn encoded_len(batch: &VecDeque<Incoming>) -> u64 {
    let payloads = batch.iter().map(|item| match item {
        Incoming::Message(message) => message.len(),
        Incoming::Gap(_) => 0,
    });
    payloads.map(|len| (HEADER_BYTES + len) as u64).sum()
}

fn encode(batch: &VecDeque<Incoming>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(encoded_len(batch) as usize);
    for item in batch {
        let (kind, payload) = match item {
            Incoming::Message(message) if message.is_text() => (KIND_TEXT, message.as_bytes()),
            Incoming::Message(message) => (KIND_BINARY, message.as_bytes()),
            Incoming::Gap(_) => (KIND_GAP, &[][..]),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gap;

    async fn turn(file: &mut SpillFile) -> Progress {
        std::future::poll_fn(|cx| file.poll(cx)).await
    }

    fn batch(from: u32, count: u32) -> VecDeque<Incoming> {
        (from..from + count)
            .map(|i| Incoming::Message(Message::binary(i.to_be_bytes().repeat(25))))
            .collect()
    }

    #[tokio::test]
    async fn ring_wraps_and_keeps_messages_and_gaps_in_order() {
        let mut file = SpillFile::new(Spill::default().max_bytes(10_000));
        let (mut written, mut read) = (0, 0u32);
        for round in 0..200 {
            let mut items = batch(written, 30);
            written += 30;
            items.push_back(Incoming::Gap(Gap::Dropped {
                messages: round,
                bytes: 0,
            }));
            assert!(file.can_take(&items));
            file.write(&mut items);
            assert!(matches!(
                turn(&mut file).await,
                Progress::Spilled { messages: 30, .. }
            ));
            while file.has_stored() {
                file.read();
                assert!(matches!(turn(&mut file).await, Progress::Loaded));
            }
            for item in file.ready.drain(..) {
                match item {
                    Incoming::Message(message) => {
                        assert_eq!(message.as_bytes()[..4], read.to_be_bytes());
                        read += 1;
                    }
                    Incoming::Gap(Gap::Dropped { messages, .. }) => assert_eq!(messages, round),
                    Incoming::Gap(gap) => panic!("{gap:?}"),
                }
            }
        }
        assert_eq!(read, written);
    }

    #[tokio::test]
    async fn full_file_takes_no_more_than_its_bytes() {
        let mut file = SpillFile::new(Spill::default().max_bytes(1000));
        let mut items = batch(0, 9);
        file.write(&mut items);
        turn(&mut file).await;
        assert_eq!(file.stored(), (9, 945));
        assert!(!file.can_take(&batch(9, 1)));
    }

    #[tokio::test]
    async fn unwritable_directory_gives_the_batch_back() {
        let mut file = SpillFile::new(Spill::default().directory("/nonexistent/unstall"));
        let mut items = batch(0, 3);
        file.write(&mut items);
        assert!(matches!(
            turn(&mut file).await,
            Progress::Failed { lost: 0, .. }
        ));
        assert_eq!(file.refused.len(), 3);
    }
}
