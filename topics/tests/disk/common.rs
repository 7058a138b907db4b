//! What the tests have in common.

use std::{env, path::Path, process::Command};

use unstall_proto::{
    Kind,
    topics::{Filter, Offset, Publisher, Topic},
};
use unstall_topics::{
    Embedded, Limits,
    store::{Appended, Publication, Read, Store, StoreError, Stored},
};

pub(crate) fn small() -> Limits {
    Limits::default().max_bytes(16 << 20)
}

pub(crate) async fn open(directory: &Path) -> Embedded {
    Embedded::open(directory, small()).await.unwrap()
}

pub(crate) fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

/// A message from which its number can be read, and whether it is whole.
pub(crate) fn message(number: u64, length: usize) -> Publication {
    let mut payload = format!("{number}:{length}:").into_bytes();
    let bytes = (payload.len()..length).map(|at| byte(number, at));
    payload.extend(bytes.collect::<Vec<_>>());
    let topic = Topic::new(&format!("t.{}", number % 7)).unwrap();
    Publication::new(topic, Kind::Binary, payload)
}

fn byte(number: u64, at: usize) -> u8 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (8 * (at % 8))) as u8 ^ at as u8
}

/// The number of a message, which has to be whole.
pub(crate) fn number_of(stored: &Stored) -> u64 {
    let text = String::from_utf8_lossy(&stored.payload);
    let mut fields = text.split(':');
    let mut field = || fields.next().and_then(|field| field.parse().ok());
    let (number, length) = (field().expect("a number"), field().expect("a length"));
    let whole = message(number, length as usize);
    assert_eq!(stored.payload, whole.payload, "message {number} is torn");
    assert_eq!(stored.topic, whole.topic);
    number
}

pub(crate) fn numbered(mut message: Publication, publisher: Publisher, number: u64) -> Publication {
    message.publisher = Some((publisher, number));
    message
}

/// Everything that is there.
pub(crate) async fn read_all(store: &dyn Store, filter: &str) -> Vec<Stored> {
    let (found, damaged) = read_around_damage(store, filter).await;
    assert!(damaged.is_empty(), "{damaged:?}");
    found
}

/// Everything that can be read, and the places that cannot: behind the first, up to the second.
pub(crate) async fn read_around_damage(
    store: &dyn Store,
    filter: &str,
) -> (Vec<Stored>, Vec<(Offset, Offset)>) {
    let last = store.bounds().await.unwrap().last;
    let (mut found, mut damage) = (Vec::new(), Vec::new());
    let mut at = Offset::START;
    while at < last {
        let read = Read::new(at, last, Filter::new(filter).unwrap(), 1 << 20);
        match store.read(read).await {
            Ok(chunk) => {
                assert!(chunk.through > at);
                at = chunk.through;
                found.extend(chunk.messages);
            }
            Err(StoreError::Damaged { after, through, .. }) => {
                assert!(after >= at && through > after, "{after} {through}");
                damage.push((after, through));
                at = through;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (found, damage)
}

pub(crate) fn offset_of(answer: &Appended) -> Offset {
    match answer {
        Appended::Stored { offset, .. } => *offset,
        other => panic!("it has to be stored, but: {other:?}"),
    }
}

/// Starts this program again for one test, which plays the child.
pub(crate) fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory);
    command
}

const CHILD: &str = "UNSTALL_TEST_CHILD";

/// The directory, if this process is a child.
pub(crate) fn childs_directory() -> Option<std::path::PathBuf> {
    env::var_os(CHILD).map(Into::into)
}
