//! Keeps panics inside: what panics under [`guarded`] comes out as an INTERNAL failure with the panic's message.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::tensorflow::status::{Code, Failure};

/// What `work` returns, or the failure that its panic amounts to. Whatever `work` had its hands on is given up or
/// holds no invariants across calls, so that unwinding leaves nothing half done.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let message = format!("sepconv panicked, which is a bug in sepconv: {}", message(&*payload));
        // A payload may panic again when it is dropped.
        std::mem::forget(payload);
        Err(Failure { code: Code::INTERNAL, message })
    })
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_failures() {
        let panics: [fn(); 4] = [
            || panic!("a constant"),
            || panic!("a number: {}", std::hint::black_box(1)),
            || std::panic::panic_any(1),
            || assert!(std::hint::black_box([0; 3]).is_empty()),
        ];
        let messages = panics.map(|panic| {
            let failure = guarded(|| {
                panic();
                Ok(())
            });
            let Failure { code, message } = failure.unwrap_err();
            assert_eq!(code, Code::INTERNAL);
            message
        });
        assert!(messages[0].ends_with(": a constant"));
        assert!(messages[1].ends_with(": a number: 1"));
        assert!(messages[2].ends_with(": (no message)"));
        assert!(messages[3].contains("is_empty"));
    }

    #[test]
    fn panics_while_dropping_the_payload_stay_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert!(guarded::<()>(|| std::panic::panic_any(Bomb)).is_err());
    }

    #[test]
    fn results_pass_through() {
        assert_eq!(guarded(|| Ok(3)), Ok(3));
        let failure = Failure { code: Code::INVALID_ARGUMENT, message: "no".into() };
        assert_eq!(guarded::<()>(|| Err(failure.clone())), Err(failure));
    }
}
