//! The stems of a stem file, which has exactly four.

use super::error::OfflineError;

/// Stems of a stem file.
const STEMS: usize = 4;
/// Name of a stem that is silent, where a model has fewer than four.
const NO_STEM: &str = "-";

/// The order that DJ software expects, by the name of a stem: drums, bass, the rest, vocals.
fn rank(name: &str) -> usize {
    match name.to_ascii_lowercase().as_str() {
        "drums" => 0,
        "bass" => 1,
        "vocals" => 3,
        _ => 2,
    }
}

/// For each stem of the file, its name and its index in `names`; no index for a silent one.
///
/// # Errors
/// [`OfflineError::Options`] if there are more than four stems.
pub(super) fn stem_tracks(names: &[String]) -> Result<Vec<(String, Option<usize>)>, OfflineError> {
    if names.len() > STEMS {
        return Err(OfflineError::Options {
            what: format!(
                "a stem file has four stems, the model has {} ({}); write WAV or FLAC instead",
                names.len(),
                names.join(", ")
            ),
        });
    }
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&n| rank(&names[n]));
    let mut tracks: Vec<_> = order.into_iter().map(|n| (names[n].clone(), Some(n))).collect();
    tracks.resize(STEMS, (NO_STEM.into(), None));
    Ok(tracks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_come_in_the_order_of_dj_software() {
        let tracks = |names: &[&str]| -> Vec<(String, Option<usize>)> {
            stem_tracks(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let order = |names: &[&str]| -> Vec<Option<usize>> {
            tracks(names).into_iter().map(|(_, index)| index).collect()
        };
        assert_eq!(order(&["vocals", "other", "Bass", "Drums"]), [Some(3), Some(2), Some(1), Some(0)]);
        assert_eq!(order(&["vocals", "instrumental"]), [Some(1), Some(0), None, None]);
        assert_eq!(tracks(&["vocals"])[3].0, "-");
        let six = ["drums", "bass", "other", "vocals", "guitar", "piano"].map(String::from);
        assert!(stem_tracks(&six).unwrap_err().to_string().contains("guitar"));
    }
}
