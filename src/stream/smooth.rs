//! Gains that move without clicks and arrive exactly.

/// A gain on its way to a target, in a straight line.
///
/// Arrives at the very target, not near it: a gain of 1 is then exactly 1, and what it multiplies is untouched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    value: f32,
    target: f32,
    step: f32,
    left: u32,
    length: u32,
}

impl Ramp {
    /// Resting at `value`; a change takes `length` samples.
    pub(crate) fn new(value: f32, length: u32) -> Self {
        Self { value, target: value, step: 0.0, left: 0, length: length.max(1) }
    }

    /// Sets the target. Realtime-safe. What is no finite number is ignored.
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

    /// Its value while it rests. Realtime-safe.
    pub(crate) fn resting(&self) -> Option<f32> {
        (self.left == 0).then_some(self.value)
    }
}

/// Gains of the left and right channel for a pan from −1 (left) to 1 (right): a balance, exactly 1 on both sides at the centre.
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
    fn a_ramp_arrives_exactly_wherever_it_comes_from() {
        for from in [0.0, 0.1, 0.3, 1.7, -1.0, 1e-20, 7.3e5] {
            let mut ramp = Ramp::new(from, 480);
            ramp.set(1.0);
            let last = (0..480).map(|_| ramp.next()).last();
            assert_eq!(last, Some(1.0));
            assert_eq!(ramp.resting(), Some(1.0));
        }
    }

    #[test]
    fn a_ramp_turns_back_without_a_jump_and_ignores_nan() {
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
