//! What happens before libtorch is started: answers that need no network, and how threads wait.
//!
//! The loader maps libtorch and then runs its initialisers, which register its operators: 14 ms
//! and 0.22 s on two cores. On Linux the loader first runs what the executable lists in its
//! section `.preinit_array` (System V ABI, "Initialization and Termination Functions"), so a
//! command that needs no network ends before the initialisers.
//!
//! Any other starts the program once more, with a variable for libgomp, which reads the environment
//! when it is loaded. By default its threads spin for milliseconds before they sleep, which takes
//! the processor from whoever has work: on two cores beside a compiler a run of 40 images took 28
//! to 32 s, and takes 2 to 4 s with short spinning. The second start costs about 15 ms.

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
    use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
    use std::os::unix::ffi::OsStrExt;

    /// How often a thread of libgomp looks for work before it sleeps.
    const SPINS: &CStr = c"GOMP_SPINCOUNT=300";

    unsafe extern "C" {
        /// The variables of the environment, which glibc sets after this.
        static mut environ: *const *const c_char;
    }

    // SAFETY: the loader calls the functions of this section with these arguments.
    #[used]
    #[unsafe(link_section = ".preinit_array")]
    static BEFORE_INITIALISERS: unsafe extern "C" fn(
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) = before_initialisers;

    /// # Safety
    /// For the loader, in its only thread: `words` are `count` C strings, `variables` a list of them
    /// that ends with null. Both live as long as the process.
    unsafe extern "C" fn before_initialisers(
        count: c_int,
        words: *const *const c_char,
        variables: *const *const c_char,
    ) {
        // SAFETY: `variables` is a list of C strings that ends with null.
        let is_set = |names: &[&[u8]]| unsafe { is_any_set(variables, names) };
        // Libraries that are loaded before all others, such as sanitizers, put functions in the
        // place of libc's, which are not ready yet: nothing of libc may be called.
        if is_set(&[b"LD_PRELOAD="]) {
            return;
        }
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: see above. Pipes are ignored as Rust's runtime does later.
        let given: Vec<OsString> = unsafe {
            environ = variables;
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            let words = std::slice::from_raw_parts(words, count).iter();
            let word = |&word| OsStr::from_bytes(CStr::from_ptr(word).to_bytes()).to_os_string();
            words.map(word).collect()
        };
        // After a panic, main reads the words again and says what is wrong.
        std::panic::set_hook(Box::new(|_| {}));
        if let Ok(Some(status)) = std::panic::catch_unwind(|| super::answer(given)) {
            signal_hook::low_level::exit(status);
        }
        // If the loader is the program (`ld-linux.so prism`), it has no base address, and would be
        // started in the place of this program.
        // SAFETY: it only reads what the kernel passed.
        let is_program = unsafe { libc::getauxval(libc::AT_BASE) } != 0;
        if is_program && !is_set(&[b"OMP_WAIT_POLICY=", b"GOMP_SPINCOUNT="]) {
            // SAFETY: as above.
            unsafe { start_with_brief_spinning(words, variables) };
        }
    }

    /// Whether a list of variables has one that begins with one of `names`. Calls nothing of libc.
    ///
    /// # Safety
    /// `variables` is a list of C strings that ends with null.
    unsafe fn is_any_set(variables: *const *const c_char, names: &[&[u8]]) -> bool {
        // SAFETY: see above; comparing ends at the first byte that differs, or the string's null.
        let entries = (0..).map(|index| unsafe { *variables.add(index) });
        let mut entries = entries.take_while(|entry| !entry.is_null());
        entries.any(|entry| {
            let begins = |name: &&[u8]| {
                let mut bytes = name.iter().enumerate();
                // SAFETY: as above.
                bytes.all(|(index, &byte)| unsafe { *entry.add(index) } as u8 == byte)
            };
            names.iter().any(begins)
        })
    }

    /// Starts the program again with the variable for libgomp. Goes on if that fails.
    ///
    /// # Safety
    /// `words` and `variables` are lists of C strings that end with null.
    unsafe fn start_with_brief_spinning(
        words: *const *const c_char,
        variables: *const *const c_char,
    ) {
        // What the loader passed on itself: a second start must see the variable of the first.
        // SAFETY: see above.
        let listed = (0..).map(|index| unsafe { *variables.add(index) });
        let mut listed: Vec<*const c_char> = listed.take_while(|entry| !entry.is_null()).collect();
        let program =
            std::env::current_exe().map(|path| path.into_os_string().into_encoded_bytes());
        if let Ok(Ok(program)) = program.map(CString::new) {
            listed.extend([SPINS.as_ptr(), std::ptr::null()]);
            // SAFETY: both lists end with null, and there is one thread.
            unsafe { libc::execve(program.as_ptr(), words, listed.as_ptr()) };
        }
    }
}
