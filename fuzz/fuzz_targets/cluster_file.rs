//! `2cluster.bin`: what is read can be written, and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prism::internals::pickle;

fuzz_target!(|bytes: &[u8]| {
    let Ok(rows) = pickle::read(bytes) else {
        return;
    };
    let mut written = Vec::new();
    pickle::write(&rows, &mut written).expect("what was read can be written");
    let again = pickle::read(written.as_slice()).expect("what was written can be read");
    assert!(rows == again, "{rows:?} became {again:?}");
});
