//! The result of a separation in memory.

use super::audio::Audio;

/// Stems in memory, each as long as the mixture, with its channels and sample rate.
///
/// With a lossless mode (the default) their sum is the mixture: exactly, in any order of addition, if the mixture's samples are multiples of
/// 2⁻²³, as all 16- and 24-bit samples are; otherwise it is the mixture rounded to 2⁻²³.
#[derive(Clone, Debug, PartialEq)]
pub struct Stems {
    stems: Vec<(String, Audio)>,
    null_dbfs: f64,
}

impl Stems {
    pub(super) fn new(stems: Vec<(String, Audio)>, null_dbfs: f64) -> Self {
        Self { stems, null_dbfs }
    }

    /// The stem named `name`. Upper and lower case are equal unless both exist.
    pub fn get(&self, name: &str) -> Option<&Audio> {
        let exact = self.stems.iter().find(|(known, _)| known == name);
        let found = exact.or_else(|| self.stems.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)));
        found.map(|(_, audio)| audio)
    }

    /// Names and audio, in the model's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Audio)> {
        self.stems.iter().map(|(name, audio)| (name.as_str(), audio))
    }

    /// Number of stems.
    pub fn len(&self) -> usize {
        self.stems.len()
    }

    /// Whether there are no stems.
    pub fn is_empty(&self) -> bool {
        self.stems.is_empty()
    }

    /// Peak of mixture − Σ stems in dBFS; −∞ if the sum is exact.
    pub fn null_dbfs(&self) -> f64 {
        self.null_dbfs
    }
}

impl IntoIterator for Stems {
    type Item = (String, Audio);
    type IntoIter = std::vec::IntoIter<(String, Audio)>;

    fn into_iter(self) -> Self::IntoIter {
        self.stems.into_iter()
    }
}
