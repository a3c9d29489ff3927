//! Third-party crates read the user's files, and may panic on them. Such a
//! panic becomes an ordinary error: nothing is printed, and the explorer keeps its terminal.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};

thread_local! {
    /// Whether a panic of this thread will be caught and reported as an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The result of `body`.
///
/// # Errors
/// If it panics, the message of the panic, in one short line.
pub fn guard<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| on_panic(|_| {}));
    let outer = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(outer);
    done.map_err(|panic| said(&*panic))
}

/// Runs `first` on each panic, then the previous hook; neither for a panic that [`guard`] catches.
pub fn on_panic(first: impl Fn(&PanicHookInfo) + Send + Sync + 'static) {
    static CHANGING: Mutex<()> = Mutex::new(());
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = take_hook();
    set_hook(Box::new(move |info| {
        if !GUARDED.get() {
            first(info);
            before(info);
        }
    }));
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text =
        text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given");
    crate::text::fit(text.lines().next().unwrap_or_default(), 80)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_what_is_not_guarded_is_told() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        on_panic(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(guard(|| 1), Ok(1));
        assert_eq!(guard(|| panic!("a {}", "b")), Err::<(), _>("a b".to_owned()));
        assert_eq!(guard(|| guard(|| panic!("inner")).is_err()), Ok(true));
        assert!(
            guard(|| {
                let _ = guard(|| panic!("inner"));
                panic!("outer")
            })
            .is_err()
        );
        assert_eq!(told.load(Ordering::SeqCst), 0);
        // Set after the first guard, on another thread, and outside.
        assert!(std::thread::spawn(|| panic!("told")).join().is_err());
        assert!(catch_unwind(|| panic!("told")).is_err());
        assert_eq!(told.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_it_says_is_one_short_line() {
        let line = guard(|| panic!("{}\nmore", "x".repeat(1000))).unwrap_err();
        assert!(line.len() < 100 && line.ends_with('…'), "{line}");
    }
}
