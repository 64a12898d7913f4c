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

    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let mut sources: Vec<PathBuf> = std::fs::read_dir(SHIM)
        .expect("the shim's folder")
        .map(|entry| entry.expect("a file of the shim").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .map(|path| path.canonicalize().expect("a path in the shim's folder"))
        .collect();
    sources.sort();
    // Two units that include the files, so that libtorch's headers are read twice, not ten
    // times: 15 s on two cores instead of about 50 s.
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let half = sources.len().div_ceil(2);
    let units = sources.chunks(half).enumerate().map(|(number, files)| {
        let lines = files.iter().map(|file| format!("#include {file:?}\n"));
        let unit = out.join(format!("shim_{number}.cpp"));
        std::fs::write(&unit, lines.collect::<String>()).expect("OUT_DIR can be written");
        unit
    });
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .debug(false)
        .flag(format!("-ffile-prefix-map={folder}=.")) // no path of this machine in messages
        .include(SHIM) // for the names of Gloo
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(units)
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
