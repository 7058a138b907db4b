//! ARCHITECTURE.md is the map of `lib/src`: it names every file, and the rooms in the order in which
//! they may use each other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The rooms, as the map lists them, and what it says of each.
fn rooms() -> Vec<(String, String)> {
    let map = fs::read_to_string(root().join("../ARCHITECTURE.md")).unwrap();
    let begin = map.find("`lib/` the crate").expect("the map of lib");
    let end = map.find("`topics/` the crate").expect("the map of topics");
    let items = map[begin..end].split("\n- `").skip(1);
    let rooms = items.map(|item| {
        let (room, rest) = item.split_once('`').unwrap();
        (room.to_owned(), rest.to_owned())
    });
    rooms.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The files of `lib/src` without those that hold only tests: paths without their extension, and texts.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let source = root().join("src");
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&source).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace('\\', "/");
            if name != "lib" && !name.contains("tests") {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn map_names_every_file_and_no_other() {
    let files = files();
    for (room, says) in rooms() {
        let inside = files.iter().filter_map(|(file, _)| {
            let file = file.strip_prefix(&format!("{room}/"))?;
            Some(file.to_owned())
        });
        let named: BTreeSet<_> = says.split('`').skip(1).step_by(2).collect();
        for file in inside {
            let full = format!("{room}/{file}");
            assert!(
                named.contains(file.as_str()) || named.contains(full.as_str()),
                "the map of `{room}` does not name {file}"
            );
        }
        for name in named.iter().filter(|name| name.contains('/')) {
            // Within its room, or from the room's folder.
            let exists = files
                .iter()
                .any(|(file, _)| file == name || *file == format!("{room}/{name}"));
            assert!(
                exists,
                "the map of `{room}` names {name}, which is not there"
            );
        }
    }
    let rooms: Vec<_> = rooms().into_iter().map(|(room, _)| room).collect();
    for (file, _) in &files {
        let room = file.split('/').next().unwrap();
        assert!(rooms.iter().any(|it| it == room), "no room has {file}");
    }
}

#[test]
fn arrows_between_rooms_run_one_way() {
    let order: Vec<_> = rooms().into_iter().map(|(room, _)| room).collect();
    let place = |room: &str| order.iter().position(|it| it == room);
    let mut arrows = 0;
    for (file, text) in files() {
        let room = file.split('/').next().unwrap();
        let from = place(room).unwrap();
        for used in used_rooms(&text) {
            let Some(to) = place(&used) else { continue };
            arrows += usize::from(to != from);
            assert!(
                to <= from,
                "{file} uses `{used}`, which stands after `{room}`"
            );
        }
    }
    assert!(arrows > 50, "the arrows are still found: {arrows}");
}

/// Once the table of dependencies missed two of them.
#[test]
fn every_dependency_has_its_line() {
    let map = fs::read_to_string(root().join("../ARCHITECTURE.md")).unwrap();
    let (_, table) = map.split_once("## Dependencies").unwrap();
    let mut seen = 0;
    for member in [
        "proto",
        "lib",
        "topics",
        "dashboard",
        "cli",
        "bench",
        "docs",
        "fuzz",
    ] {
        let manifest = root().join("..").join(member).join("Cargo.toml");
        let mut listed = false;
        for line in fs::read_to_string(manifest).unwrap().lines() {
            if line.starts_with('[') {
                listed = line.ends_with("dependencies]");
                continue;
            }
            let name = line.split(['.', ' ']).next().unwrap();
            let foreign = !name.is_empty() && !name.starts_with(['#', '"', '}']);
            if listed && foreign && !name.starts_with("unstall") {
                seen += 1;
                assert!(
                    table.contains(&format!("`{name}`")),
                    "{member} depends on {name}, which has no line in ARCHITECTURE.md"
                );
            }
        }
    }
    assert!(seen > 50, "only {seen} dependencies were found");
}

/// The first names after `crate::`, outside comments and test modules.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(|line| line.chars().chain(['\n']))
        .collect();
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(first_name(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && (c.is_alphabetic() || c == '_') => {
                    used.insert(first_name(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    used
}

fn first_name(text: &str) -> String {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    text[..end.unwrap_or(text.len())].to_owned()
}
