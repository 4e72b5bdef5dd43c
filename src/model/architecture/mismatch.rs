//! Differences between the tensors of a checkpoint and those that its configuration requires.

use std::collections::BTreeMap;
use std::fmt;

use super::ExpectedTensor;

/// One tensor of the wrong shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Name without prefix.
    pub name: String,
    /// Shape required by the configuration.
    pub expected: Vec<usize>,
    /// Shape in the file.
    pub found: Vec<usize>,
}

/// All differences between a configuration and a checkpoint. Displays as a report that groups similar tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Likely causes, the most specific first: `the YAML says depth 12, the file holds 6 layers`.
    pub causes: Vec<String>,
    /// Required tensors that are missing, with the required shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Tensors of the file that are not required.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// Tensors with another shape.
    pub wrong_shape: Vec<ShapeMismatch>,
}

impl Mismatch {
    /// Compares `expected` with the tensors of a file, given as names and shapes.
    pub fn between<'a>(
        expected: &[ExpectedTensor],
        found: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Self {
        let mut rest: BTreeMap<&str, &[usize]> = found.collect();
        let mut mismatch = Self::default();
        for ExpectedTensor { name, shape, optional } in expected {
            match rest.remove(name.as_str()) {
                Some(found) if found == shape => {}
                // PyTorch stores scalars both as [] and as [1].
                Some([1]) if shape.is_empty() => {}
                Some(found) => mismatch.wrong_shape.push(ShapeMismatch {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: found.into(),
                }),
                None if *optional => {}
                None => mismatch.missing.push((name.clone(), shape.clone())),
            }
        }
        mismatch.unexpected = rest.into_iter().map(|(name, shape)| (name.into(), shape.into())).collect();
        mismatch
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
            && self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.wrong_shape.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration and the checkpoint do not belong together")?;
        let names = |list: &[(String, Vec<usize>)]| -> Vec<(String, String)> {
            list.iter().map(|(name, shape)| (name.clone(), format!("{shape:?}"))).collect()
        };
        let wrong_shape = self
            .wrong_shape
            .iter()
            .map(|m| (m.name.clone(), format!("expected {:?}, found {:?}", m.expected, m.found)))
            .collect();
        let groups = [
            ("missing", names(&self.missing)),
            ("unexpected", names(&self.unexpected)),
            ("wrong shape", wrong_shape),
        ];
        let used = groups.iter().filter(|(_, tensors)| !tensors.is_empty()).count();
        let causes = &self.causes[..self.causes.len().min(MAX_CAUSES)];
        // The title of the report, and those of the groups with a line for what is left out.
        let left = MAX_LINES.saturating_sub(1 + 2 * used + causes.len());
        for (title, tensors) in &groups {
            write_group(f, title, tensors, left / used.max(1))?;
        }
        // Last, where a terminal shows it.
        for (at, cause) in causes.iter().enumerate() {
            write!(f, "  likely cause: {cause}{}", if at + 1 < causes.len() { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// Most lines of a report.
const MAX_LINES: usize = 20;
/// Most causes in a report.
const MAX_CAUSES: usize = 5;

/// Writes one group of tensors. Names that differ only in their indices share a line.
fn write_group(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    tensors: &[(String, String)],
    most: usize,
) -> fmt::Result {
    if tensors.is_empty() {
        return Ok(());
    }
    writeln!(f, "  {title}: {} tensor{}", tensors.len(), if tensors.len() == 1 { "" } else { "s" })?;
    let mut groups: BTreeMap<(String, &str), Vec<Vec<usize>>> = BTreeMap::new();
    for (name, detail) in tensors {
        let (pattern, indices) = split_indices(name);
        groups.entry((pattern, detail)).or_default().push(indices);
    }
    let most = most.max(1);
    let left_out: usize = groups.values().skip(most).map(Vec::len).sum();
    for ((pattern, detail), members) in groups.into_iter().take(most) {
        let mut parts = pattern.split('*');
        let mut line = parts.next().unwrap_or_default().to_string();
        for (axis, part) in parts.enumerate() {
            line += &ranges(members.iter().filter_map(|m| m.get(axis).copied()));
            line += part;
        }
        writeln!(f, "    {line} {detail}")?;
    }
    if left_out > 0 {
        writeln!(f, "    and {left_out} more")?;
    }
    Ok(())
}

/// `layers.3.0.weight` → (`layers.*.*.weight`, [3, 0]).
fn split_indices(name: &str) -> (String, Vec<usize>) {
    let mut indices = Vec::new();
    let pattern: Vec<&str> = name
        .split('.')
        .map(|part| match part.parse() {
            Ok(index) => {
                indices.push(index);
                "*"
            }
            Err(_) => part,
        })
        .collect();
    (pattern.join("."), indices)
}

/// `0, 1, 2, 5` → `{0-2,5}`; a single index stands alone.
fn ranges(indices: impl Iterator<Item = usize>) -> String {
    let mut sorted: Vec<usize> = indices.collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for i in sorted {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == i => *end = i,
            _ => runs.push((i, i)),
        }
    }
    let text: Vec<String> =
        runs.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    if runs.len() == 1 && runs[0].0 == runs[0].1 { text.concat() } else { format!("{{{}}}", text.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(name: &str, shape: &[usize]) -> ExpectedTensor {
        ExpectedTensor { name: name.into(), shape: shape.into(), optional: false }
    }

    #[test]
    fn every_difference_is_listed_and_similar_names_share_a_line() {
        let called: Vec<_> = (0..12).map(|i| expected(&format!("layers.{i}.0.norm.gamma"), &[8])).collect();
        let held: Vec<(String, Vec<usize>)> = (0..6)
            .map(|i| (format!("layers.{i}.0.norm.gamma"), vec![if i == 3 { 9 } else { 8 }]))
            .chain([("extra.bias".into(), vec![2])])
            .collect();
        let mut mismatch = Mismatch::between(&called, held.iter().map(|(n, s)| (n.as_str(), s.as_slice())));
        assert_eq!(
            (mismatch.missing.len(), mismatch.unexpected.len(), mismatch.wrong_shape.len()),
            (6, 1, 1)
        );
        mismatch.causes.push("the YAML says depth 12, the file holds 6 layers".into());
        let report = mismatch.to_string();
        for line in [
            "likely cause: the YAML says depth 12, the file holds 6 layers",
            "layers.{6-11}.0.norm.gamma [8]",
            "extra.bias [2]",
            "layers.3.0.norm.gamma expected [8], found [9]",
        ] {
            assert!(report.contains(line), "{line} is not in\n{report}");
        }
    }

    #[test]
    fn report_is_short_and_ends_with_the_cause() {
        let called: Vec<_> = (0..300).map(|i| expected(&format!("part{i}.weight"), &[i + 1])).collect();
        let held: Vec<(String, Vec<usize>)> = (0..300)
            .map(|i| {
                (if i % 2 == 0 { format!("part{i}.weight") } else { format!("other{i}.bias") }, vec![i, i])
            })
            .collect();
        let mut mismatch = Mismatch::between(&called, held.iter().map(|(n, s)| (n.as_str(), s.as_slice())));
        mismatch.causes.extend(["first".to_owned(), "second".to_owned()]);
        let report = mismatch.to_string();
        assert!(report.lines().count() <= 20, "{report}");
        assert_eq!(
            report.lines().rev().take(2).collect::<Vec<_>>(),
            ["  likely cause: second", "  likely cause: first"]
        );
        assert!(report.contains("missing: 150 tensors") && report.contains(" more\n"), "{report}");
    }

    #[test]
    fn equal_sets_have_no_mismatch() {
        let called = [expected("a", &[2, 3]), ExpectedTensor { optional: true, ..expected("b", &[1]) }];
        assert!(Mismatch::between(&called, [("a", [2usize, 3].as_slice())].into_iter()).is_empty());
    }
}
