//! Which models of the registry the library shows, and in which order.

use egui::{RichText, Ui};

use crate::registry::{self, RegistryEntry, Task};

/// The user's choice: a search text, a task, and a benchmark.
#[derive(Default)]
pub struct LibraryFilter {
    /// Part of a name, an author or a stem.
    pub text: String,
    /// Only models for this task.
    task: Option<Task>,
    /// The models with the best scores in this benchmark come first. By default the order is that of the registry.
    benchmark: Option<&'static str>,
}

impl LibraryFilter {
    /// Draws the rows of tasks and benchmarks.
    pub fn show(&mut self, ui: &mut Ui) {
        let small = |text: &str| RichText::new(text).size(11.5);
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 3.0;
            ui.label(small("Task:"));
            ui.selectable_value(&mut self.task, None, small("all"));
            for task in Task::ALL {
                ui.selectable_value(&mut self.task, Some(task), small(task.key()));
            }
        });
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 3.0;
            ui.label(small("Sort by score:"));
            ui.selectable_value(&mut self.benchmark, None, small("no"));
            for benchmark in registry::benchmarks() {
                ui.selectable_value(&mut self.benchmark, Some(benchmark), small(benchmark)).on_hover_text(
                    "Scores of different benchmarks are not comparable, so one list is sorted by one benchmark.",
                );
            }
        });
    }

    /// Whether the built-in model is shown.
    pub fn shows_built_in(&self) -> bool {
        self.task.is_none_or(|task| task == Task::Stems)
            && "preview embedded built-in nullsum".contains(&self.needle())
    }

    /// The models to show, each with its index in the registry.
    pub fn entries(&self) -> Vec<(usize, &'static RegistryEntry)> {
        let needle = self.needle();
        let mut entries = registry::entries_for(self.task);
        entries.retain(|entry| matches(entry, &needle));
        if let Some(benchmark) = self.benchmark {
            registry::sort_by_score(&mut entries, benchmark, self.task.map(Task::key));
        }
        let index =
            |entry: &RegistryEntry| registry::entries().iter().position(|other| other.name == entry.name);
        entries.into_iter().filter_map(|entry| Some((index(entry)?, entry))).collect()
    }

    /// The score of an entry in short form: in the benchmark that sorts the list, or the first published one.
    pub fn score_text(&self, entry: &RegistryEntry) -> String {
        match self.benchmark {
            Some(benchmark) => match entry.score(benchmark, self.task.map(Task::key)) {
                Some(db) => format!("{db:.2} dB ({benchmark})"),
                None => format!("no score in {benchmark}"),
            },
            None if entry.sdr.is_empty() => "SDR not published".into(),
            None => entry.sdr_text(),
        }
    }

    fn needle(&self) -> String {
        self.text.trim().to_lowercase()
    }
}

fn matches(entry: &RegistryEntry, needle: &str) -> bool {
    needle.is_empty()
        || [&entry.name, &entry.title, &entry.author].iter().any(|text| text.to_lowercase().contains(needle))
        || entry.stems.iter().any(|stem| stem.contains(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str, task: Option<Task>, benchmark: Option<&'static str>) -> LibraryFilter {
        LibraryFilter { text: text.into(), task, benchmark }
    }

    #[test]
    fn search_matches_author_stem_and_title() {
        let entry = registry::default_entry();
        for (needle, is_found) in
            [("", true), ("drums", true), ("zfturbo", true), ("musdb", true), ("kazoo", false)]
        {
            assert_eq!(matches(entry, needle), is_found, "{needle}");
        }
    }

    #[test]
    fn task_search_and_order_go_together() {
        for task in Task::ALL {
            let shown = filter("", Some(task), None).entries();
            let expected = registry::entries_for(Some(task)).len();
            assert!(shown.iter().all(|(_, entry)| entry.tasks.contains(&task)) && shown.len() == expected);
            for benchmark in registry::benchmarks() {
                let sorted = filter("", Some(task), Some(benchmark));
                let entries = sorted.entries();
                let scores: Vec<Option<f32>> =
                    entries.iter().map(|(_, entry)| entry.score(benchmark, Some(task.key()))).collect();
                // Models without a score come last.
                assert!(scores.is_sorted_by(|a, b| a >= b), "{task}, {benchmark}: {scores:?}");
                assert_eq!(entries.len(), expected);
                assert!(entries.iter().all(|(_, entry)| sorted.score_text(entry).contains(benchmark)));
            }
        }
        // Costs and downloads are kept by the index in the registry, whatever the order is.
        let sorted = filter("", None, registry::benchmarks().first().copied()).entries();
        assert!(sorted.iter().all(|(index, entry)| registry::entries()[*index].name == entry.name));
        assert!(!sorted.is_sorted_by_key(|(index, _)| *index));
        let kim = filter("KIM", Some(Task::Vocals), None).entries();
        assert!(!kim.is_empty() && kim.iter().all(|(_, entry)| matches(entry, "kim")));
        assert!(filter("KIM", Some(Task::Dereverb), None).entries().is_empty());
        assert!(
            filter("", None, None).shows_built_in() && filter("", Some(Task::Stems), None).shows_built_in()
        );
        assert!(!filter("", Some(Task::Karaoke), None).shows_built_in());
    }
}
