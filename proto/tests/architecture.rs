//! ARCHITECTURE.md is the map of `proto/src`: it names every file, in an order in which each file
//! uses only those before it.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The files, in the order in which the map names them.
fn map() -> Vec<String> {
    let map = fs::read_to_string(root().join("../ARCHITECTURE.md")).unwrap();
    let begin = map.find("`proto/` the session").expect("the map of proto");
    let list = begin + map[begin..].find("\n- ").expect("a list");
    let end = map.find("`lib/` the crate").expect("the map of lib");
    let names = map[list..end].split('`').skip(1).step_by(2);
    let names = names.filter(|name| *name != "lib").map(str::to_owned);
    names.collect()
}

/// Files of `proto/src` without those that hold only tests, as paths without ending, and their
/// text.
fn files() -> Vec<(String, String)> {
    let source = root().join("src");
    let (mut found, mut folders) = (Vec::new(), vec![source.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&source).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace('\\', "/");
            if name != "lib" && !name.ends_with("tests") {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn the_map_names_every_file_and_no_other() {
    let mut named = map();
    let mut there: Vec<_> = files().into_iter().map(|(name, _)| name).collect();
    named.sort();
    there.sort();
    assert_eq!(named, there);
}

#[test]
fn each_file_uses_only_those_before_it() {
    let map = map();
    let place = |name: &str| map.iter().position(|it| it == name);
    let mut arrows = 0;
    for (file, text) in files() {
        // A folder belongs to its file.
        let file = file.split('/').next().unwrap();
        let from = place(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap());
        for line in code {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &rest[..end.unwrap_or(rest.len())];
                let to = place(used).unwrap_or_else(|| panic!("{file} uses {used}"));
                arrows += usize::from(to != from);
                assert!(to <= from, "{file} uses `{used}`, which stands after it");
            }
        }
    }
    assert!(arrows > 70, "the arrows are still found: {arrows}");
}
