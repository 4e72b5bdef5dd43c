//! A remix: a gain for some stems, the rest of the mixture as it is.

use std::str::FromStr;

use super::error::OfflineError;
use crate::separator::stem_position;

/// Gains by stem name, as in `vocals=-6dB,drums=mute`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mix {
    gains: Vec<(String, f32)>,
}

impl FromStr for Mix {
    type Err = OfflineError;

    fn from_str(text: &str) -> Result<Self, OfflineError> {
        let wrong = |part: &str| OfflineError::Options {
            what: format!(
                "mix `{part}`: expected stem=gain with a gain like -6dB, +3dB or mute, as in vocals=-6dB,drums=mute"
            ),
        };
        let gains = text
            .split(',')
            .map(|part| {
                let (stem, gain) = part.split_once('=').ok_or_else(|| wrong(part))?;
                let gain = gain.trim().to_ascii_lowercase();
                let gain = match gain.as_str() {
                    "mute" | "-inf" | "-infdb" => 0.0,
                    number => {
                        let db: f32 = number
                            .strip_suffix("db")
                            .unwrap_or(number)
                            .trim()
                            .parse()
                            .map_err(|_| wrong(part))?;
                        if !(-200.0..=60.0).contains(&db) {
                            return Err(wrong(part));
                        }
                        10f32.powf(db / 20.0)
                    }
                };
                Ok((stem.trim().to_string(), gain))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { gains })
    }
}

impl Mix {
    /// The gain of each of `stems`; 1 for those not named.
    ///
    /// # Errors
    /// [`OfflineError::UnknownStem`] where a name is no stem.
    pub fn gains(&self, stems: &[String]) -> Result<Vec<f32>, OfflineError> {
        let mut gains = vec![1.0; stems.len()];
        for (name, gain) in &self.gains {
            let Some(slot) = stem_position(stems, name).and_then(|stem| gains.get_mut(stem)) else {
                return Err(OfflineError::UnknownStem { name: name.clone(), known: stems.join(", ") });
            };
            *slot = *gain;
        }
        Ok(gains)
    }
}

/// Mixture + Σ (gain − 1) · stem of one channel: at unity the mixture itself, bit for bit.
pub(super) fn remix<'a>(mixture: &[f32], stems: impl Iterator<Item = (f32, &'a [f32])>) -> Vec<f32> {
    let mut out = mixture.to_vec();
    for (gain, stem) in stems.filter(|(gain, _)| *gain != 1.0) {
        out.iter_mut().zip(stem).for_each(|(x, s)| *x += (gain - 1.0) * s);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_parse_and_unknown_stems_are_named() {
        let mix: Mix = "vocals=-6dB, drums=mute".parse().unwrap();
        let stems = ["drums", "bass", "vocals"].map(String::from);
        let gains = mix.gains(&stems).unwrap();
        assert_eq!((gains[0], gains[1]), (0.0, 1.0));
        assert!((gains[2] - 0.501).abs() < 1e-3);
        assert_eq!(mix.gains(&["Drums", "Vocals", "bass"].map(String::from)).unwrap(), [0.0, gains[2], 1.0]);
        let error = mix.gains(&stems[1..]).unwrap_err().to_string();
        assert!(error.contains("drums") && error.contains("bass, vocals"), "{error}");
        for wrong in ["vocals", "vocals=loud", "vocals=999dB", ""] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn at_unity_a_remix_is_the_mixture() {
        let (mixture, stem) = ([0.1f32, -0.7], [0.3f32, 0.9]);
        assert_eq!(remix(&mixture, [(1.0, stem.as_slice())].into_iter()), mixture);
        assert_eq!(remix(&[0.5], [(0.0, [0.25f32].as_slice())].into_iter()), [0.25]);
    }
}
