//! ARCHITECTURE.md is the map of `topics/src`: it names every file, and the files in the order in
//! which they may use each other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The names in the map, in order.
fn named() -> Vec<String> {
    let map = fs::read_to_string(root().join("../ARCHITECTURE.md")).unwrap();
    let begin = map.find("`topics/` the crate").expect("the map of topics");
    let end = map[begin..]
        .find("`cli/` the command")
        .expect("what is behind it");
    let names = map[begin..begin + end].split('`').skip(1).step_by(2);
    names.map(ToOwned::to_owned).collect()
}

/// The files without those that hold only tests: paths without their extension, and texts.
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
    let (named, files) = (named(), files());
    for (file, _) in &files {
        assert!(named.contains(file), "the map does not name {file}");
    }
    let is_file =
        |name: &&String| name.contains('/') && !name.ends_with('/') && !name.contains('.');
    for name in named.iter().filter(is_file) {
        let exists = files.iter().any(|(file, _)| file == name);
        assert!(exists, "the map names {name}, which is not there");
    }
}

#[test]
fn arrows_between_files_run_one_way() {
    let named = named();
    let place = |file: &str| named.iter().position(|it| it == file);
    let mut arrows = 0;
    for (file, text) in files() {
        let own = file.split('/').next().unwrap();
        let from = place(own).unwrap();
        for used in used(&text) {
            let Some(to) = place(&used).filter(|_| used != own) else {
                continue;
            };
            arrows += 1;
            assert!(
                to < from,
                "{file} uses `{used}`, which stands after `{own}`"
            );
        }
    }
    assert!(arrows > 80, "the arrows are still found: {arrows}");
}

/// The first names after `crate::`, outside comments and test modules.
fn used(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let code: String = lines.flat_map(|line| line.chars().chain(['\n'])).collect();
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(first_name(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
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
