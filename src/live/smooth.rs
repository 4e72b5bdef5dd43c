//! Gain ramps without clicks that end exactly at their target.

/// A linear gain ramp.
///
/// It ends at exactly the target, so that a gain of 1 leaves samples bit-identical.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    value: f32,
    target: f32,
    step: f32,
    left: u32,
    length: u32,
}

impl Ramp {
    /// Constant at `value`; a change takes `length` samples.
    pub(crate) fn new(value: f32, length: u32) -> Self {
        Self { value, target: value, step: 0.0, left: 0, length: length.max(1) }
    }

    /// Sets the target. Values that are not finite are ignored. Realtime-safe.
    pub(crate) fn set(&mut self, target: f32) {
        if target != self.target && target.is_finite() {
            self.target = target;
            self.left = self.length;
            self.step = (target - self.value) / self.length as f32;
        }
    }

    /// Jumps to the target. Realtime-safe.
    pub(crate) fn snap(&mut self) {
        self.value = self.target;
        self.left = 0;
    }

    /// The next sample's value. Realtime-safe.
    pub(crate) fn next(&mut self) -> f32 {
        match self.left {
            0 => {}
            1 => self.snap(),
            _ => {
                self.left -= 1;
                self.value += self.step;
            }
        }
        self.value
    }

    /// The value if no ramp is in progress. Realtime-safe.
    pub(crate) fn resting(&self) -> Option<f32> {
        (self.left == 0).then_some(self.value)
    }
}

/// Left and right gain of a balance control from −1 (left) to 1 (right). Both are exactly 1 at the centre.
///
/// Realtime-safe.
pub fn balance(pan: f32) -> [f32; 2] {
    let pan = if pan.is_finite() { pan.clamp(-1.0, 1.0) } else { 0.0 };
    [1.0 - pan.max(0.0), 1.0 + pan.min(0.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_ends_exactly_at_its_target() {
        for from in [0.0, 0.1, 0.3, 1.7, -1.0, 1e-20, 7.3e5] {
            let mut ramp = Ramp::new(from, 480);
            ramp.set(1.0);
            let last = (0..480).map(|_| ramp.next()).last();
            assert_eq!(last, Some(1.0));
            assert_eq!(ramp.resting(), Some(1.0));
        }
    }

    #[test]
    fn a_ramp_reverses_without_a_jump_and_ignores_nan() {
        let mut ramp = Ramp::new(0.0, 100);
        ramp.set(1.0);
        let mut before = 0.0;
        for i in 0..300 {
            if i == 50 {
                ramp.set(0.0);
            }
            if i == 60 {
                ramp.set(f32::NAN);
            }
            let now = ramp.next();
            assert!((now - before).abs() <= 0.011);
            before = now;
        }
        assert_eq!(before, 0.0);
    }

    #[test]
    fn the_centre_is_unity() {
        assert_eq!(balance(0.0), [1.0, 1.0]);
        assert_eq!(balance(-1.0), [1.0, 0.0]);
        assert_eq!(balance(0.25), [0.75, 1.0]);
        assert_eq!(balance(f32::NAN), [1.0, 1.0]);
    }
}
