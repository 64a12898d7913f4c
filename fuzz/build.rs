//! The library path of the fuzzers. The link arguments of prism's own build.rs
//! hold for prism's binaries alone.

fn main() {
    let lib =
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names libtorch's library folder");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    if cfg!(target_os = "linux") {
        println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
    }
}
