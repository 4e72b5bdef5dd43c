//! The environment variables that Nullsum reads. `nullsum-cli env` prints this list, and `docs/environment.md` explains it.

/// An environment variable that the library, the command line or the plugin reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name, as in `NULLSUM_CACHE`.
    pub name: &'static str,
    /// What it sets, which values it takes, and what happens without it.
    pub meaning: &'static str,
}

/// All variables in alphabetical order.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "NULLSUM_CACHE",
        meaning: "folder for downloaded models, prepared stems, measurements and the log; by default the system's cache folder",
    },
    Variable {
        name: "NULLSUM_CUDA_KERNELS",
        meaning: "`fused` enables our own CUDA kernels; by default candle's are used",
    },
    Variable {
        name: "NULLSUM_KERNEL",
        meaning: "instruction set of the CPU kernels, or `candle`; by default the best that the processor has",
    },
    Variable {
        name: "NULLSUM_MIRROR",
        meaning: "URL of a mirror from which checkpoints are downloaded; by default their original addresses",
    },
    Variable {
        name: "NULLSUM_PRECISION",
        meaning: "number format that replaces `auto`: `f32`, `bf16` or `int8`; by default a self-check decides",
    },
    Variable {
        name: "NULLSUM_THREADS",
        meaning: "threads for live separation; by default all logical processors but one, unless the editor sets a number",
    },
    Variable {
        name: "NULLSUM_WORKER",
        meaning: "path of the program nullsum-worker, which runs models on GPUs for the plugin; by default it is looked for beside the plugin, in the data folder and on PATH",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn collect_names(path: &Path, names: &mut BTreeSet<String>) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| collect_names(&entry.unwrap().path(), names));
            return;
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for piece in text.split("\"NULLSUM_").skip(1) {
            let name: String = piece.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            names.insert(format!("NULLSUM_{name}"));
        }
    }

    #[test]
    fn every_variable_that_the_source_reads_is_listed_and_documented() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut read = BTreeSet::new();
        collect_names(&root.join("src"), &mut read);
        let listed: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
        assert!(listed.is_sorted(), "{listed:?}");
        // The first piece of a name in this file's own test is empty.
        read.remove("NULLSUM_");
        let read: Vec<&str> = read.iter().map(String::as_str).collect();
        assert_eq!(listed, read);
        let document = std::fs::read_to_string(root.join("docs/environment.md")).unwrap();
        for name in listed {
            assert!(document.contains(&format!("`{name}`")), "docs/environment.md does not explain {name}");
        }
    }
}
