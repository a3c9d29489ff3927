//! Signals: requests to end, stop or continue the process.
//!
//! One thread listens. It removes temporary files and then lets a signal take its default action,
//! so that the exit status shows it; or it passes the signal on to the explorer, which must restore
//! the terminal first.

/// What a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Quit, as if the user had: SIGTERM, SIGHUP, SIGINT.
    Leave,
    /// End by the signal of this number.
    End(i32),
    /// Stop until continued.
    Stop,
    /// Continue after a stop.
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

    /// All signals that end a process by default, except those that cannot be caught and those that
    /// report a fault in the program.
    const ENDING: &[i32] = &[
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGSYS,
        SIGTRAP, SIGABRT,
    ];

    type Listener = Box<dyn Fn(Signal) + Send>;

    static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);
    static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

    /// Starts listening, once.
    ///
    /// # Errors
    /// [`Error::System`] if signals cannot be caught.
    pub fn start() -> Result<()> {
        let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_some() {
            return Ok(());
        }
        // With any handler installed, exceeding the file size limit is an ordinary write error.
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(uncaught)?;
        let signals = Signals::new(heeded(ENDING.iter().copied().chain(also_ending()))).map_err(uncaught)?;
        let new = signals.handle();
        threads::spawn("actscope-signals", move || listen(signals))?;
        *handle = Some(new);
        Ok(())
    }

    /// From now on, signals go to `listener` instead of taking their default action, stops included.
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
        Error::System(format!("cannot catch signals: {cause}"))
    }

    /// The signals that the caller does not ignore, as `nohup` does.
    fn heeded(signals: impl IntoIterator<Item = i32>) -> impl Iterator<Item = i32> {
        let ignored = ignored();
        signals.into_iter().filter(move |signal| ignored >> (signal - 1) & 1 == 0)
    }

    /// A bit for each ignored signal, if the system reports them.
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
                    // Signals arrive in no order; a stop handled after its continue would last for ever.
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

    /// Ends the process by the default action of `signal`, leaving no temporary files.
    pub fn end(signal: i32) -> ! {
        temporary::close();
        let _ = low_level::emulate_default_handler(signal);
        // A signal without a name: exit with the status a shell would report.
        low_level::exit(128 + signal)
    }

    /// Whether there is a shell to return to that can continue a stopped process.
    pub fn has_shell() -> bool {
        let session = getsid(None);
        // If the session leader is in our own job, no shell started us.
        let own = session != Ok(getpgrp());
        let orphan = getpid() == getpgrp() && getsid(Some(getppid())) != session;
        own && !orphan
    }

    /// Stops the process and its job, as Ctrl-Z does; returns when they
    /// are continued.
    ///
    /// # Errors
    /// [`Error::System`] if the system refuses.
    pub fn stop() -> Result<()> {
        kill(Pid::from_raw(0), signal::SIGSTOP)
            .map_err(|cause| Error::System(format!("cannot stop the program: {cause}")))
    }
}

#[cfg(not(unix))]
mod imp {
    use super::Signal;
    use crate::error::{Error, Result};

    /// There are no such signals here.
    pub fn start() -> Result<()> {
        Ok(())
    }

    /// There are no such signals here.
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
        Err(Error::System("cannot stop a program on this system".into()))
    }
}
