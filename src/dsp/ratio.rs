//! Ratios of sample rates.

/// `a : b` in lowest terms; one of them may be 0.
pub fn lowest_terms(a: u32, b: u32) -> (u32, u32) {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor, b / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_reduced_in_either_order() {
        assert_eq!(lowest_terms(48_000, 44_100), (160, 147));
        assert_eq!(lowest_terms(44_100, 48_000), (147, 160));
        assert_eq!(lowest_terms(96_000, 48_000), (2, 1));
        assert_eq!(lowest_terms(44_100, 48_001), (44_100, 48_001));
        assert_eq!(lowest_terms(0, 5), (0, 1));
    }
}
