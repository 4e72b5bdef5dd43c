//! Choice of the kernels: by instruction set and format, by name, and the best for this processor.

use std::fmt;

use super::compiled::{self, Kernels};
use super::error::KernelError;
use super::isa::{Format, Isa};
use super::layout::Element;
use super::product::LinearProduct;

/// Environment variable that overrides the choice of instruction set, for tests and reports.
pub const ENV: &str = "NULLSUM_KERNEL";

/// Instruction set and format that kernels are compiled for. An [`Isa`] converts to its first format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Instruction set.
    pub isa: Isa,
    /// Number format.
    pub format: Format,
}

impl Isa {
    /// The instruction sets this processor can run in some format, best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_present()).collect()
    }

    /// The instruction set of that name, if this processor has it.
    pub fn by_name(name: &str) -> Result<Self, KernelError> {
        let available = || join_names(Self::available());
        let isa = Self::ALL.into_iter().find(|isa| isa.name() == name.to_ascii_lowercase());
        let isa =
            isa.ok_or_else(|| KernelError::UnknownIsa { found: name.to_owned(), available: available() })?;
        if Self::available().contains(&isa) {
            Ok(isa)
        } else {
            Err(KernelError::Unavailable { isa: isa.name().to_owned(), available: available() })
        }
    }

    /// The instruction set named by `NULLSUM_KERNEL`; none if it is unset, empty or `auto`.
    ///
    /// # Errors
    /// [`KernelError`] if the name is unknown or this processor lacks the instruction set.
    pub fn from_env() -> Result<Option<Self>, KernelError> {
        match std::env::var(ENV) {
            Ok(name) if !name.is_empty() && name != "auto" => Self::by_name(&name).map(Some),
            _ => Ok(None),
        }
    }
}

impl From<Isa> for Target {
    fn from(isa: Isa) -> Self {
        Self { isa, format: isa.formats().first().copied().unwrap_or(Format::F32) }
    }
}

impl Target {
    /// Those this processor can run, best last within each format.
    pub fn available() -> Vec<Self> {
        Isa::ALL.into_iter().flat_map(Self::of).filter(|target| target.lookup().is_some()).collect()
    }

    /// The best available in `format`, or what `NULLSUM_KERNEL` asks for.
    ///
    /// # Errors
    /// [`KernelError`] where the processor lacks what is asked for, or that has not this format.
    pub fn select(format: Format) -> Result<Self, KernelError> {
        match Isa::from_env()? {
            Some(isa) => {
                let target = Self { isa, format };
                target.kernels().map(|_| target)
            }
            None => Ok(Self::best(format)),
        }
    }

    /// The best available in `format`.
    pub fn best(format: Format) -> Self {
        let best = Self::available().into_iter().rfind(|target| target.format == format);
        best.unwrap_or(Self { isa: Isa::Portable, format })
    }

    fn of(isa: Isa) -> impl Iterator<Item = Self> {
        isa.formats().iter().map(move |&format| Self { isa, format })
    }

    /// The kernels, or an error when this processor cannot run them: holding the reference proves that it can.
    pub(super) fn kernels(self) -> Result<&'static Kernels, KernelError> {
        self.lookup().ok_or_else(|| {
            let others = Self::available().into_iter().filter(|target| target.format == self.format);
            KernelError::Unavailable {
                // It may be available in another format, so both are named.
                isa: format!("{} {}", self.isa, self.format.name()),
                available: join_names(others.map(|target| target.isa)),
            }
        })
    }

    fn lookup(self) -> Option<&'static Kernels> {
        if !self.isa.is_present() {
            return None;
        }
        let mut all = compiled::ALL.iter();
        all.find(|(isa, format, _)| (*isa, *format) == (self.isa, self.format)).map(|(.., kernels)| *kernels)
    }
}

/// A product of rows of f32 with a right operand in bf16, in panels as those of `kernels`, if this processor has one.
pub(super) fn widening_product(kernels: &Kernels) -> Option<&'static LinearProduct> {
    let targets = Target::available();
    let halves = targets.iter().rev().filter(|target| target.format == Format::Bf16);
    let mut products = halves.filter_map(|target| target.lookup()).filter(|other| other.nr == kernels.nr);
    let half =
        products.find(|other| (other.linear.left, other.linear.right) == (Element::F32, Element::Bf16))?;
    Some(&half.linear)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::F32 => write!(f, "{}", self.isa),
            other => write!(f, "{} {}", self.isa, other.name()),
        }
    }
}

fn join_names(isas: impl IntoIterator<Item = Isa>) -> String {
    isas.into_iter().map(Isa::name).collect::<Vec<_>>().join(", ")
}
