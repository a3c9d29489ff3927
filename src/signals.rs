//! What the system asks of the process at any moment: to end, to stop, to go on.
//!
//! One thread listens. It removes the temporary files and lets a signal do what it does by default,
//! so that the exit status tells of it; or it passes the signal on, to an explorer that has a
//! terminal to give back first.

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To leave, as the user would: SIGTERM, SIGHUP, SIGINT.
    Leave,
    /// To end by the signal of this number.
    End(i32),
    /// To stop, until someone continues it.
    Stop,
    /// It was stopped, and goes on.
    Continue,
}

#[cfg(feature = "cli")]
pub use imp::start;
pub use imp::{end, has_shell, stop, tell};

#[cfg(unix)]
mod imp {
    use std::sync::{Arc, Mutex, PoisonError};

    use nix::sys::signal::{self, kill};
    use nix::unistd::{Pid, getpgrp, getpid, getppid, getsid};
    use signal_hook::consts::{
        SIGABRT, SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGSYS, SIGTERM, SIGTRAP, SIGTSTP,
        SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
    };
    use signal_hook::iterator::{Handle, Signals};
    use signal_hook::low_level;

    use super::Signal;
    use crate::error::{Error, Result};
    use crate::{temporary, threads};

    /// All that end a process by default, but for those that cannot be caught and those that say
    /// that the program is broken.
    const ENDING: &[i32] = &[
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGSYS,
        SIGTRAP, SIGABRT,
    ];

    type Listener = Box<dyn Fn(Signal) + Send>;

    static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);
    static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

    /// Begins to listen, once.
    ///
    /// # Errors
    /// [`Error::System`] when signals cannot be caught.
    pub fn start() -> Result<()> {
        let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_some() {
            return Ok(());
        }
        // With a handler, whatever it does, writing beyond a limit is an error like any other.
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(uncaught)?;
        let signals = Signals::new(heeded(ENDING.iter().copied().chain(also_ending()))).map_err(uncaught)?;
        let new = signals.handle();
        threads::spawn("actscope-signals", move || listen(signals))?;
        *handle = Some(new);
        Ok(())
    }

    /// From now on `listener` is told in place of what signals do by default, of stops as well.
    ///
    /// # Errors
    /// As [`start`].
    pub fn tell(listener: impl Fn(Signal) + Send + 'static) -> Result<()> {
        start()?;
        *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(listener));
        if let Some(handle) = &*HANDLE.lock().unwrap_or_else(PoisonError::into_inner) {
            for signal in heeded([SIGTSTP, SIGCONT]) {
                handle.add_signal(signal).map_err(uncaught)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::needless_pass_by_value)] // for `map_err`
    fn uncaught(cause: std::io::Error) -> Error {
        Error::System(format!("signals cannot be caught: {cause}"))
    }

    /// Those that the caller did not ask to ignore, as `nohup` does.
    fn heeded(signals: impl IntoIterator<Item = i32>) -> impl Iterator<Item = i32> {
        let ignored = ignored();
        signals.into_iter().filter(move |signal| ignored >> (signal - 1) & 1 == 0)
    }

    /// A bit for each signal that is ignored, where the system says so without more ado.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }

    #[cfg(target_os = "linux")]
    fn also_ending() -> impl Iterator<Item = i32> {
        use nix::libc;
        [libc::SIGIO, libc::SIGPWR, libc::SIGSTKFLT].into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    }

    #[cfg(not(target_os = "linux"))]
    fn also_ending() -> impl Iterator<Item = i32> {
        std::iter::empty()
    }

    fn listen(mut signals: Signals) {
        loop {
            let pending: Vec<i32> = signals.wait().collect();
            for &signal in &pending {
                let asked = match signal {
                    SIGCONT => Signal::Continue,
                    // They come in no order; to stop what was continued would be for ever.
                    SIGTSTP if pending.contains(&SIGCONT) => continue,
                    SIGTSTP => Signal::Stop,
                    SIGTERM | SIGHUP | SIGINT => Signal::Leave,
                    other => Signal::End(other),
                };
                match &*LISTENER.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(tell) => tell(asked),
                    None => end(signal),
                }
            }
        }
    }

    /// Ends the process as `signal` does by default, and leaves no temporary file.
    pub fn end(signal: i32) -> ! {
        temporary::close();
        let _ = low_level::emulate_default_handler(signal);
        // One of those that have no name: what a shell would say.
        low_level::exit(128 + signal)
    }

    /// Whether there is a shell to go back to, that can also continue what is stopped.
    pub fn has_shell() -> bool {
        let session = getsid(None);
        // As long as the terminal's first process is of our job, no other can have started it.
        let own = session != Ok(getpgrp());
        let orphan = getpid() == getpgrp() && getsid(Some(getppid())) != session;
        own && !orphan
    }

    /// Stops the process, and those that were started with it, as Ctrl-Z does; comes back when they
    /// are continued.
    ///
    /// # Errors
    /// [`Error::System`] when the system refuses.
    pub fn stop() -> Result<()> {
        kill(Pid::from_raw(0), signal::SIGSTOP)
            .map_err(|cause| Error::System(format!("the program cannot be stopped: {cause}")))
    }
}

#[cfg(not(unix))]
mod imp {
    use super::Signal;
    use crate::error::{Error, Result};

    /// There are none here.
    pub fn start() -> Result<()> {
        Ok(())
    }

    /// There are none here.
    pub fn tell(_: impl Fn(Signal) + Send + 'static) -> Result<()> {
        Ok(())
    }

    /// Ends the process.
    pub fn end(signal: i32) -> ! {
        crate::temporary::close();
        std::process::exit(128 + signal)
    }

    /// No shell here can continue what is stopped.
    pub fn has_shell() -> bool {
        false
    }

    /// Never.
    pub fn stop() -> Result<()> {
        Err(Error::System("a program cannot be stopped here".into()))
    }
}
