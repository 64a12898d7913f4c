//! Answers help, the version and wrong words before libtorch is started.
//!
//! The loader maps libtorch and then runs its initialisers, which register its operators: 14 ms
//! and 0.22 s on two cores. On Linux the loader first runs what the executable lists in its
//! section `.preinit_array` (System V ABI, "Initialization and Termination Functions"), so a
//! command that needs no network ends before the initialisers.

use std::sync::Mutex;

use prism::internals::{Request, print_help, print_text};

/// What the words ask for, if they were read before `main`.
static REQUEST: Mutex<Option<Request>> = Mutex::new(None);

/// What the words ask for, if they were read before `main`.
pub fn request() -> Option<Request> {
    REQUEST.lock().ok()?.take()
}

/// The exit status, if the words ask for no network; otherwise `main` goes on.
#[cfg_attr(
    not(target_env = "gnu"),
    expect(dead_code, reason = "only glibc runs it early")
)]
fn answer(words: Vec<std::ffi::OsString>) -> Option<i32> {
    let mut stdout = std::io::stdout();
    let done = match prism::internals::parse(words) {
        Ok(Request::Help(help)) => print_help(&help),
        Ok(Request::Text(text)) => print_text(&text, &mut stdout),
        Ok(request) => {
            *REQUEST.lock().ok()? = Some(request);
            return None;
        }
        Err(wrong) => Err(wrong.into()),
    };
    Some(done.map_or_else(|error| crate::said(&error), |()| 0))
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod loader {
    use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
    use std::os::unix::ffi::OsStrExt;

    // SAFETY: the loader calls the functions of this section with these arguments.
    #[used]
    #[unsafe(link_section = ".preinit_array")]
    static BEFORE_INITIALISERS: unsafe extern "C" fn(c_int, *const *const c_char) =
        before_initialisers;

    /// # Safety
    /// For the loader, in its only thread: `words` are `count` C strings that live as long as the
    /// process. The loader has set the environment already.
    unsafe extern "C" fn before_initialisers(count: c_int, words: *const *const c_char) {
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: see above. Pipes are ignored as Rust's runtime does later.
        let words: Vec<OsString> = unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            let words = std::slice::from_raw_parts(words, count).iter();
            let word = |&word| OsStr::from_bytes(CStr::from_ptr(word).to_bytes()).to_os_string();
            words.map(word).collect()
        };
        // After a panic, main reads the words again and says what is wrong.
        std::panic::set_hook(Box::new(|_| {}));
        if let Ok(Some(status)) = std::panic::catch_unwind(|| super::answer(words)) {
            signal_hook::low_level::exit(status);
        }
    }
}
