//! Which instruction sets there are, and which of them this processor has.

use std::sync::OnceLock;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{Kernel, portable};
#[cfg(all(target_arch = "x86_64", not(test)))]
use super::{avx512, avx512_bf16};
use crate::element::Element;

/// An instruction set that this processor has: values exist for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(pub(super) Proof);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    #[cfg(all(target_arch = "x86_64", not(test)))]
    Avx512Bf16(avx512_bf16::Avx512Bf16),
    #[cfg(all(target_arch = "x86_64", not(test)))]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Portable(portable::Portable),
}

/// Of all instruction sets, on whatever processors.
const NAMES: [&str; 5] = ["avx512_bf16", "avx512", "avx2", "neon", "portable"];

impl InstructionSet {
    /// All that this processor has, the best first.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            #[cfg(not(test))]
            sets.extend(avx512_bf16::Avx512Bf16::new().map(Proof::Avx512Bf16));
            #[cfg(not(test))]
            sets.extend(avx512::Avx512::new().map(Proof::Avx512));
            sets.extend(avx2::Avx2::new().map(Proof::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        sets.extend(neon::Neon::new().map(Proof::Neon));
        sets.push(Proof::Portable(portable::Portable));
        sets.into_iter().map(Self).collect()
    }

    /// The one named by the environment variable `SEPCONV_INSTRUCTION_SET` (`avx512_bf16`, `avx512`,
    /// `avx2`, `neon`, `portable`) if this processor has it, otherwise the best one, which standard error is then told.
    /// The variable is read once.
    pub fn preferred() -> Self {
        static PREFERRED: OnceLock<InstructionSet> = OnceLock::new();
        *PREFERRED.get_or_init(|| {
            let best = Self::available()[0];
            let Some(name) = std::env::var_os("SEPCONV_INSTRUCTION_SET").filter(|name| !name.is_empty()) else {
                return best;
            };
            Self::named(&name.to_string_lossy()).unwrap_or_else(|error| {
                eprintln!("sepconv: {error}; taking {}", best.name());
                best
            })
        })
    }

    fn named(name: &str) -> Result<Self, String> {
        let sets = Self::available();
        sets.iter().find(|set| set.name() == name).copied().ok_or_else(|| {
            let sets = sets.iter().map(|set| set.name()).collect::<Vec<_>>().join(", ");
            let names = NAMES.join(", ");
            format!("SEPCONV_INSTRUCTION_SET is `{name}`; there are {names}, of which this processor has {sets}")
        })
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", not(test)))]
            Proof::Avx512Bf16(_) => "avx512_bf16",
            #[cfg(all(target_arch = "x86_64", not(test)))]
            Proof::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Proof::Neon(_) => "neon",
            Proof::Portable(_) => "portable",
        }
    }
}

/// What the kernels provide for an element type.
pub trait Kernels: Sized {
    /// Made once.
    fn kernel(set: InstructionSet) -> &'static Kernel<Self>
    where
        Self: Element;
}

macro_rules! provide {
    ($($element:ident)*) => {$(
        impl Kernels for $element {
            fn kernel(set: InstructionSet) -> &'static Kernel<Self> {
                macro_rules! once {
                    ($proof:ident) => {{
                        static KERNEL: OnceLock<Kernel<$element>> = OnceLock::new();
                        KERNEL.get_or_init(|| $proof.$element())
                    }};
                }
                match set.0 {
                    #[cfg(all(target_arch = "x86_64", not(test)))]
                    Proof::Avx512Bf16(proof) => once!(proof),
                    #[cfg(all(target_arch = "x86_64", not(test)))]
                    Proof::Avx512(proof) => once!(proof),
                    #[cfg(target_arch = "x86_64")]
                    Proof::Avx2(proof) => once!(proof),
                    #[cfg(target_arch = "aarch64")]
                    Proof::Neon(proof) => once!(proof),
                    Proof::Portable(proof) => once!(proof),
                }
            }
        }
    )*};
}
provide!(f32 f64 f16 bf16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_is_not_there_is_an_error() {
        for set in InstructionSet::available() {
            assert!(NAMES.contains(&set.name()));
            assert_eq!(InstructionSet::named(set.name()), Ok(set));
        }
        let error = InstructionSet::named("avx1024").unwrap_err();
        let expected =
            "SEPCONV_INSTRUCTION_SET is `avx1024`; there are avx512_bf16, avx512, avx2, neon, portable, of which";
        assert!(error.starts_with(expected) && error.ends_with("portable"), "{error}");
    }

    /// In a process of its own, as the variable is read once.
    #[test]
    #[cfg_attr(target_arch = "aarch64", ignore = "may be emulated, where a process cannot start another")]
    fn standard_error_is_told_which_set_is_taken_instead() {
        let best = InstructionSet::available()[0].name();
        for (name, told) in [("foo", 1), (best, 0), ("", 0)] {
            let mut this_test = std::process::Command::new(std::env::current_exe().unwrap());
            let run = this_test.args(["--exact", "--nocapture", "kernels::instruction_set::tests::preferred_twice"]);
            let output = run.env("SEPCONV_INSTRUCTION_SET", name).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{text}");
            assert_eq!(text.matches(&format!("is `{name}`")).count(), told, "{text}");
            assert_eq!(text.matches(&format!("taking {best}")).count(), told, "{text}");
        }
    }

    #[test]
    fn preferred_twice() {
        assert_eq!(InstructionSet::preferred(), InstructionSet::preferred());
    }

    #[test]
    fn kernels_have_names() {
        for set in InstructionSet::available() {
            assert_eq!(f32::kernel(set).name, format!("{}-f32", set.name()));
            assert_eq!(f64::kernel(set).name, format!("{}-f64", set.name()));
            assert_eq!(f16::kernel(set).name, format!("{}-f16", set.name()));
            assert_eq!(bf16::kernel(set).name, format!("{}-bf16", set.name()));
        }
    }
}
