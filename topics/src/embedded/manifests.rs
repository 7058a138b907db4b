//! Checks the database's lists of files before it is opened.
//!
//! Each keyspace has a file `v` and a number that lists its tables, and a file `current` with that
//! number and the list's checksum. The database does not compare them: it would take a damaged list as
//! it is, leave tables out, or allocate any amount of memory.

use std::{
    fs::{self, DirEntry},
    io,
    path::Path,
};

use xxhash_rust::xxh3::xxh3_128;

/// What is wrong with one of the lists, if anything is.
pub(super) fn damage(database: &Path) -> io::Result<Option<String>> {
    let keyspaces = match fs::read_dir(database.join("keyspaces")) {
        Ok(keyspaces) => keyspaces,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for keyspace in keyspaces {
        if let Some(why) = damage_in(&keyspace?)? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn damage_in(keyspace: &DirEntry) -> io::Result<Option<String>> {
    let name = keyspace.file_name();
    let name = name.to_string_lossy();
    if name.parse::<u64>().is_err() {
        return Ok(Some(format!("messages/keyspaces/{name} is not a keyspace")));
    }
    let current = match fs::read(keyspace.path().join("current")) {
        Ok(current) => current,
        // It was being made or deleted when the process ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let fields = current.first_chunk::<8>().zip(current.get(8..24));
    let matches = match fields {
        Some((number, checksum)) => {
            let list = format!("v{}", u64::from_le_bytes(*number));
            match fs::read(keyspace.path().join(list)) {
                Ok(list) => xxh3_128(&list).to_le_bytes() == checksum,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            }
        }
        None => false,
    };
    let why = || format!("the list of tables in messages/keyspaces/{name} is damaged");
    Ok((!matches).then(why))
}
