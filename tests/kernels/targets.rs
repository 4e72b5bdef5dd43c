//! Targets under test.

use nullsum::kernels::Target;

/// All targets this processor can run. `NULLSUM_TEST_ISA=avx512,amx` restricts them, for runs under an emulator.
pub fn targets() -> Vec<Target> {
    let wanted = std::env::var("NULLSUM_TEST_ISA").unwrap_or_default();
    let named = |target: &Target| wanted.split(',').any(|name| name == target.isa.name());
    let targets = Target::available().into_iter();
    let targets: Vec<_> = targets.filter(|target| wanted.is_empty() || named(target)).collect();
    assert!(!targets.is_empty(), "this processor has none of {wanted}");
    targets
}
