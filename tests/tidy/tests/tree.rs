//! What the checks read: the files of the repository, and the packages of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Folders that hold no source of ours.
const SKIPPED: [&str; 6] = [
    ".git",
    "target",
    "node_modules",
    "cdk.out",
    "__pycache__",
    ".venv",
];

/// One text file, named from the root of the repository with `/`.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        self.path
            .rsplit_once('.')
            .is_some_and(|(_, found)| found == extension)
    }
}

/// A dependency that a package names.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Only its tests need it.
    pub(crate) dev: bool,
    /// It is a package of this workspace.
    pub(crate) ours: bool,
    pub(crate) features: Vec<String>,
}

/// A package of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder from the root: `crates/object-io`.
    pub(crate) folder: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the root exists")
}

/// All text files of the repository, sorted by path.
pub(crate) fn files() -> &'static [TextFile] {
    static FILES: OnceLock<Vec<TextFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        let root = root();
        let mut found = Vec::new();
        walk(&root, &root, &mut found);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    })
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<TextFile>) {
    for entry in fs::read_dir(folder)
        .expect("folder is readable")
        .map(|entry| entry.unwrap())
    {
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(root, &entry.path(), found);
        } else if kind.is_file()
            // A file may vanish while somebody edits; a binary file is no text.
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            let path = entry.path();
            let path = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.push(TextFile {
                path: path.replace('\\', "/"),
                text,
            });
        }
    }
}

/// The packages of the workspace as cargo sees them.
pub(crate) fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--offline",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let root = root();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            folder: folder_of(&root, &text(&package["manifest_path"])),
            dependencies: package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    dev: dependency["kind"] == "dev",
                    ours: dependency["path"].is_string(),
                    features: dependency["features"]
                        .as_array()
                        .map(|features| features.iter().map(text).collect())
                        .unwrap_or_default(),
                })
                .collect(),
        })
        .collect()
}

fn folder_of(root: &Path, manifest: &str) -> String {
    let folder = Path::new(manifest)
        .parent()
        .expect("a manifest has a folder");
    folder
        .strip_prefix(root)
        .expect("packages lie below the root")
        .to_str()
        .unwrap()
        .to_owned()
}

/// Fails with every complaint, if there is any.
#[track_caller]
pub(crate) fn expect_none(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} complaint(s):\n  {}",
        complaints.len(),
        complaints.join("\n  ")
    );
}
