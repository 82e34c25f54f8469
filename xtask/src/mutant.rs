//! Bugs to plant: `crates/sim/mutants/NAME.mutant`, a line that says what is wrong, then `--- FILE` and lines to take out
//! (`-`) and to put in their place (`+`).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// A planted bug.
pub(crate) struct Mutant {
    pub(crate) name: String,
    /// What is wrong, for people.
    pub(crate) what: String,
    file: String,
    old: String,
    new: String,
}

impl Mutant {
    /// All of a folder, by name.
    pub(crate) fn all(folder: &Path) -> Result<Vec<Self>> {
        let mut files: Vec<_> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        files
            .iter()
            .map(|file| {
                let name = file.file_stem().unwrap_or_default().to_string_lossy();
                let text = fs::read_to_string(file)?;
                Self::parse(&name, &text).with_context(|| format!("{} is no mutant", file.display()))
            })
            .collect()
    }

    fn parse(name: &str, text: &str) -> Option<Self> {
        let (what, rest) = text.split_once('\n')?;
        let (file, change) = rest.strip_prefix("--- ")?.split_once('\n')?;
        let lines = |mark: char| {
            let lines = change.lines().filter_map(|line| line.strip_prefix(mark));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        let (name, what, file) = (name.to_owned(), what.to_owned(), file.to_owned());
        Some(Self { name, what, file, old: lines('-'), new: lines('+') })
    }

    /// Changes the copy of the checkout in `root`.
    pub(crate) fn plant(&self, root: &Path) -> Result<()> {
        let file = root.join(&self.file);
        let source = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let found = source.matches(&self.old).count();
        ensure!(
            !self.old.is_empty() && found == 1,
            "mutant {}: what it takes out of {} is there {found} times, not once: adapt it to the source",
            self.name,
            self.file
        );
        fs::write(&file, source.replacen(&self.old, &self.new, 1))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    /// Cheap enough for every run of the tests: a change of the core that a mutant does not fit any more is seen at once.
    #[test]
    fn every_mutant_fits_the_source() {
        let root = paths::repository();
        let mutants = Mutant::all(&root.join("crates/sim/mutants")).unwrap();
        assert!(mutants.len() >= 10);
        for mutant in mutants {
            let source = fs::read_to_string(root.join(&mutant.file)).unwrap();
            assert_eq!(source.matches(&mutant.old).count(), 1, "{}", mutant.name);
            assert_ne!(mutant.old, mutant.new, "{}", mutant.name);
        }
    }
}
