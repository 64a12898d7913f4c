//! Compiles the C++ shim against the libtorch that tch is linked with, and
//! writes that libtorch's folder into the binaries as their library path.

use std::path::PathBuf;

fn main() {
    const SHIM: &str = "src/hooks/cpp";
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");

    // torch-sys hands on the folder that it links: the one source of truth.
    let lib = PathBuf::from(
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names libtorch's library folder"),
    );
    let root = std::env::var("LIBTORCH_INCLUDE")
        .map(PathBuf::from)
        .unwrap_or_else(|_| lib.parent().expect("lib/ lies in libtorch").to_path_buf());
    let include = root.join("include");

    let sources = std::fs::read_dir(SHIM)
        .expect("the shim's folder")
        .map(|entry| entry.expect("a file of the shim").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"));
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .debug(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(sources)
        .compile("prism_shim");

    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if cfg!(target_os = "linux") {
        // libtorch's own dependencies are found by its rpath when it is loaded.
        println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
        if lib.join("libtorch_cuda.so").exists() {
            // Nothing refers to it by name: it registers itself when it is loaded.
            println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
            println!("cargo:rustc-link-arg=-ltorch_cuda");
        }
    }
}
