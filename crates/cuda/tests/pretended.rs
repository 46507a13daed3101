//! The host's side of this backend without a GPU: on a driver that pretends to be there (`pretended/cuda.c`), which counts what is alive,
//! looks at addresses, and fails when it is told to. What kernels compute is not looked at: they compute nothing.
//!
//! Each test runs in a process of its own, since a driver is a process's only one.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "../examples/checkpoint/mod.rs"]
mod checkpoint;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use checkpoint::Size;
use libloading::Library;
use mlxt_backend::Precision::{Bf16, F16, F32, Fp8, Int8, Tf32};
use mlxt_backend::conformance::{Case, Operation, Why, cases, check_cases};
use mlxt_backend::operations::conformance as operations;
use mlxt_backend::{Arithmetic, Backend, Error, NormKind, Precision, Reduction, TokenBatch};
use mlxt_cuda::{Cuda, CudaDevice, CudaOptions};
use mlxt_models::{Config, Encoder, Weights};

/// Where the libraries are, for a process that is to load them.
const FOLDER: &str = "MLXT_PRETENDED_GPU";
/// Their names, of which each is looked for by somebody.
const NAMES: [&str; 6] =
    ["libcuda.so", "libcuda.so.1", "libnvrtc.so", "libnvrtc.so.13", "libcublasLt.so", "libcublasLt.so.13"];
/// Kinds of things that the driver and its libraries make.
const KINDS: [&str; 11] = [
    "contexts",
    "streams",
    "events",
    "memory",
    "pinned memory",
    "modules",
    "graphs",
    "startable graphs",
    "programs of NVRTC",
    "handles of cuBLASLt",
    "descriptions of cuBLASLt",
];
const OUT_OF_MEMORY: i32 = 2;
const ILLEGAL_ADDRESS: i32 = 700;

/// What the pretended driver is asked and told beside its work.
struct Gpu {
    driver: Library,
    cache: tempfile::TempDir,
}

impl Gpu {
    /// In a process that runs the test of that name alone, the driver; in the one that is to run it, nothing when it has passed.
    fn alone_in(test: &str) -> Option<Self> {
        let Some(folder) = env::var_os(FOLDER) else {
            let root = libraries();
            let (folder, program) = (root.join("lib64"), env::current_exe().unwrap());
            let mut command = Command::new(program);
            command.args(["--exact", test, "--nocapture"]).env(FOLDER, &folder);
            let output = command.env("LD_LIBRARY_PATH", &folder).env("CUDA_HOME", root).output().unwrap();
            let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
            assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}", output.status);
            return None;
        };
        // SAFETY: it does nothing when it is loaded.
        let driver = unsafe { Library::new(Path::new(&folder).join(NAMES[0])) }.unwrap();
        let gpu = Self { driver, cache: tempfile::tempdir().unwrap() };
        let code = format!(".text.{}\0", Vec::from_iter(kernels()).join("\0.text."));
        // SAFETY: of this type in cuda.c, which copies the text.
        unsafe { gpu.function::<unsafe extern "C" fn(*const u8, usize)>("code")(code.as_ptr(), code.len()) };
        Some(gpu)
    }

    /// What tests call of the driver.
    ///
    /// # Safety
    /// In cuda.c it has this type.
    unsafe fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: the caller's promise.
        *unsafe { self.driver.get::<F>(format!("pretend_{name}").as_bytes()) }.unwrap()
    }

    fn capability(&self, capability: i32) {
        // SAFETY: of this type in cuda.c.
        unsafe { self.function::<unsafe extern "C" fn(i32)>("capability")(capability) }
    }

    /// The call behind so many others fails, or all from it on.
    fn fail(&self, after: i64, with: i32, all: bool) {
        // SAFETY: of this type in cuda.c.
        unsafe { self.function::<unsafe extern "C" fn(i64, i32, i32)>("failure")(after, with, i32::from(all)) }
    }

    /// Nothing fails any more.
    fn recover(&self) {
        self.fail(-1, 0, false);
    }

    fn count(&self, of: &str) -> i64 {
        // SAFETY: of this type in cuda.c.
        unsafe { self.function::<unsafe extern "C" fn() -> i64>(of)() }
    }

    /// What was made and not given back.
    fn alive(&self) -> Vec<(&'static str, i64)> {
        // SAFETY: of this type in cuda.c.
        let alive = unsafe { self.function::<unsafe extern "C" fn(i32) -> i64>("alive") };
        // SAFETY: kinds are those of cuda.c.
        let counts = KINDS.iter().zip(0..).map(|(kind, number)| (*kind, unsafe { alive(number) }));
        counts.filter(|(_, count)| *count != 0).collect()
    }

    fn options(&self, arithmetic: Arithmetic) -> CudaOptions {
        CudaOptions { arithmetic, cache: Some(self.cache.path().to_owned()), ..CudaOptions::default() }
    }

    fn open(&self, arithmetic: Arithmetic) -> Cuda {
        Cuda::new(CudaDevice::new(&self.options(arithmetic)).unwrap())
    }
}

/// A folder with the libraries in `lib64`, as in a toolkit.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pretended");
        let (folder, source) =
            (root.join("lib64"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pretended/cuda.c"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-o"]);
        let status = compiler.arg(folder.join(NAMES[0])).arg(source).status().unwrap();
        assert!(status.success(), "the pretended driver was not compiled");
        for name in &NAMES[1..] {
            std::os::unix::fs::symlink(NAMES[0], folder.join(name)).unwrap();
        }
        root
    })
}

/// Everything that may be a kernel's name: what this crate's source has in quotes. That there are kernels of these names,
/// `sources.rs` and GPUs see to.
fn kernels() -> BTreeSet<String> {
    fn read(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, names);
            } else {
                let text = fs::read_to_string(path).unwrap();
                let is_name =
                    |word: &&str| !word.is_empty() && word.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
                names.extend(text.split('"').filter(is_name).map(str::to_owned));
            }
        }
    }
    let mut names = BTreeSet::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    names
}

/// The table without its large cases: what the reference says of them is looked at for its size alone.
fn small() -> Vec<Case> {
    cases().into_iter().filter(|case| !case.timed && case.operation.flops() < 100_000_000).collect()
}

/// Its products; of those that differ in the norm alone, one.
fn products() -> Vec<Case> {
    let is_one = |operation: &Operation| match *operation {
        Operation::NormedLayers { kind, sum, .. } | Operation::NormedLinear { kind, sum, .. } => {
            kind == NormKind::LayerNorm && sum
        }
        Operation::Linear { .. } | Operation::PackedLinear { .. } => true,
        _ => false,
    };
    // Layers of 768 columns take the reference as long as all others, and have no kernel that a product and a norm have not.
    let is_small =
        |operation: &Operation| operation.flops() < 100_000_000 || matches!(operation, Operation::NormedLinear { .. });
    cases().into_iter().filter(|case| !case.timed && is_one(&case.operation) && is_small(&case.operation)).collect()
}

/// That every case was computed, however wrong: errors, and results of another size.
fn refused(cuda: &Cuda, precision: Precision, cases: Vec<Case>) -> Vec<String> {
    let report = check_cases(cuda, precision, cases);
    assert!(report.cases > 0);
    let refused = report.failures.iter().filter(|failure| !matches!(failure.why, Why::Value { .. }));
    refused.map(|failure| format!("{}: {}", failure.case, failure.why)).collect()
}

/// An encoder of so many layers, whose products are of sizes that every kernel takes.
fn encoder_of(layers: usize, cuda: &Cuda) -> mlxt_models::Result<Encoder<Cuda>> {
    static CHECKPOINTS: [OnceLock<(Config, Weights)>; 4] = [const { OnceLock::new() }; 4];
    let size = Size { hidden: 256, wide: 512, layers, vocabulary: 100 };
    let (config, weights) = CHECKPOINTS[layers].get_or_init(|| checkpoint::bert(size).unwrap());
    Encoder::load(cuda, config, weights, F16)
}

/// One of two.
fn encoder(cuda: &Cuda) -> mlxt_models::Result<Encoder<Cuda>> {
    encoder_of(2, cuda)
}

/// Sequences of these lengths.
fn batch(lengths: &[usize]) -> TokenBatch {
    TokenBatch::from_sequences(&lengths.iter().map(|&length| vec![5; length]).collect::<Vec<_>>()).unwrap()
}

/// A forward from ids to values on the host.
fn forward(cuda: &Cuda, encoder: &Encoder<Cuda>, lengths: &[usize]) -> mlxt_models::Result<Vec<f32>> {
    let hidden = encoder.forward(cuda, &batch(lengths))?;
    let pooled = cuda.reduce_rows(&hidden.tensor, &hidden.layout, Reduction::Mean)?;
    Ok(cuda.read(&pooled)?)
}

/// What each test below is about, once it is in a process of its own.
macro_rules! alone {
    ($test:ident) => {{
        let Some(gpu) = Gpu::alone_in(stringify!($test)) else { return };
        gpu
    }};
}

#[test]
fn every_case_of_the_table_is_started_as_the_driver_takes_it() {
    let gpu = alone!(every_case_of_the_table_is_started_as_the_driver_takes_it);
    let some: [(i32, &[Precision]); 4] =
        [(80, &[F32, F16]), (89, &[Bf16, Int8]), (90, &[F32, Tf32, F16, Bf16, Int8, Fp8]), (100, &[F16])];
    for (capability, precisions) in some {
        gpu.capability(capability);
        for &precision in precisions {
            let before = gpu.count("launches");
            let cuda = gpu.open(CudaDevice::arithmetic(precision));
            assert_eq!(refused(&cuda, precision, small()), [""; 0], "{precision} for {capability}");
            assert!(gpu.count("launches") > before + 1000, "{precision} for {capability}");
        }
    }
    assert_eq!(gpu.alive(), []);
}

#[test]
fn each_kernel_that_multiplies_is_started_as_the_driver_takes_it() {
    let gpu = alone!(each_kernel_that_multiplies_is_started_as_the_driver_takes_it);
    let (f16, tf32) =
        (&CudaDevice::PRODUCTS[..], [&CudaDevice::PRODUCTS_F32[1..], &CudaDevice::PRODUCTS_TF32].concat());
    for (precision, names) in [(F16, f16), (Tf32, &tf32)] {
        for name in names {
            let options = gpu.options(CudaDevice::arithmetic(precision));
            let device = CudaDevice::new(&CudaOptions { product: Some((*name).to_owned()), ..options }).unwrap();
            assert_eq!(refused(&Cuda::new(device), precision, products()), [""; 0], "{name}");
        }
    }
    assert_eq!(gpu.alive(), []);
}

#[test]
fn the_studys_operations_are_started_as_the_driver_takes_them() {
    let gpu = alone!(the_studys_operations_are_started_as_the_driver_takes_them);
    let device = CudaDevice::new(&gpu.options(Arithmetic::F32)).unwrap();
    let report = operations::check(&device);
    let refused: Vec<_> = report.failures.iter().filter(|failure| !matches!(failure.why, Why::Value { .. })).collect();
    assert!(refused.is_empty() && report.unsupported.is_empty(), "{report}");
    assert!(gpu.count("launches") > 500);
    drop(device);
    assert_eq!(gpu.alive(), []);
}

#[test]
fn a_layer_is_as_few_kernels_as_its_products_and_attention_allow() {
    let gpu = alone!(a_layer_is_as_few_kernels_as_its_products_and_attention_allow);
    // Query, key and value at once, attention, three products more. Norms are kernels, or part of the products in front of them.
    for (product, expected) in [("tile_64_64", 7), ("normed_64_128", 5)] {
        let options = CudaOptions { product: Some(product.to_owned()), ..gpu.options(Arithmetic::F16) };
        let launches = [1, 2, 3].map(|layers| {
            let cuda = Cuda::new(CudaDevice::new(&options).unwrap());
            let encoder = encoder_of(layers, &cuda).unwrap();
            forward(&cuda, &encoder, &[60, 140]).unwrap();
            let before = (gpu.count("launches"), gpu.count("starts"));
            forward(&cuda, &encoder, &[60, 140]).unwrap();
            assert_eq!(gpu.count("starts"), before.1 + 1);
            gpu.count("launches") - before.0
        });
        assert_eq!([launches[1] - launches[0], launches[2] - launches[1]], [expected; 2], "{product}");
        // Embeddings and their norm, mean vectors: two.
        assert_eq!(launches[0] - expected, 2, "{product}");
    }
}

#[test]
fn what_was_computed_before_takes_no_new_memory() {
    let gpu = alone!(what_was_computed_before_takes_no_new_memory);
    let cuda = gpu.open(Arithmetic::F16);
    let encoder = encoder(&cuda).unwrap();
    let shapes: [&[usize]; 4] = [&[3], &[14], &[9, 130, 2], &[14; 20]];
    let all = || shapes.map(|lengths| forward(&cuda, &encoder, lengths).unwrap().len());
    let sizes = all();
    assert_eq!(sizes, shapes.map(|lengths| lengths.len() * sizes[0]));
    let counts = || ["allocations", "recordings"].map(|of| gpu.count(of));
    let before = (counts(), gpu.alive(), gpu.count("starts"));
    assert_eq!(all(), sizes);
    assert_eq!((counts(), gpu.alive()), (before.0, before.1));
    assert_eq!(gpu.count("starts"), before.2 + 4);
}

#[test]
fn what_trials_found_is_found_again_by_the_next_process() {
    let gpu = alone!(what_trials_found_is_found_again_by_the_next_process);
    let mut chosen = Vec::new();
    let mut run = |choose_again: bool| {
        let options = CudaOptions { choose_again, ..gpu.options(Arithmetic::F16) };
        let cuda = Cuda::new(CudaDevice::new(&options).unwrap());
        let encoder = encoder(&cuda).unwrap();
        let before = gpu.count("recordings");
        forward(&cuda, &encoder, &[14, 190]).unwrap();
        chosen.push(cuda.device().notes().last().unwrap().split_once(": ").unwrap().1.to_owned());
        gpu.count("recordings") - before
    };
    let tried = run(false);
    assert!(tried > 50, "{tried}");
    assert_eq!(run(false), 1);
    assert!(run(true) > 50);
    assert_eq!(run(false), 1, "who chooses again keeps it to himself");
    // What is damaged, or names what there is not, is as if it had never been.
    for content in [&b""[..], b"not what was written", b"any"] {
        for entry in fs::read_dir(gpu.cache.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|e| e == "ways") {
                fs::write(entry, content).unwrap();
            }
        }
        assert!(run(false) > 50);
        assert_eq!(run(false), 1);
    }
    assert_eq!((&chosen[0], &chosen[0]), (&chosen[1], &chosen[3]));
}

/// Opens a device, loads a model, computes, and lets go of all.
fn whole_life(options: &CudaOptions) -> mlxt_models::Result<Vec<f32>> {
    let cuda = Cuda::new(CudaDevice::new(options)?);
    let encoder = encoder(&cuda)?;
    forward(&cuda, &encoder, &[14, 190])
}

/// That it is an error of the device, or that there was no memory.
fn is_known(error: &mlxt_models::Error) -> bool {
    use mlxt_models::Error::Backend;
    matches!(error, Backend(Error::Device { backend: "cuda", .. } | Error::OutOfMemory { backend: "cuda", .. }))
}

/// Lets one call after the other fail in the life of a device, `step` apart, and looks what comes of it.
fn each_call_fails(gpu: &Gpu, options: &CudaOptions, step: usize) {
    gpu.recover();
    let expected = whole_life(options).unwrap();
    let calls = gpu.count("calls");
    assert!(calls > 200, "{calls}");
    let (mut errors, mut lives) = (0, 0);
    for call in (0..calls).step_by(step) {
        for with in [OUT_OF_MEMORY, ILLEGAL_ADDRESS] {
            gpu.fail(call, with, false);
            lives += 1;
            match whole_life(options) {
                // There was another way.
                Ok(values) => assert_eq!(values, expected, "call {call} failed with {with}"),
                Err(error) => {
                    errors += 1;
                    assert!(is_known(&error), "call {call} failed with {with}: {error:?}");
                }
            }
            assert_eq!(gpu.alive(), [], "call {call} failed with {with}");
        }
    }
    assert!(2 * errors > lives, "{errors} errors in {lives} lives");
    gpu.recover();
    assert_eq!(whole_life(options).unwrap(), expected);
}

#[test]
fn whatever_call_fails_is_an_error_and_nothing_is_left() {
    let gpu = alone!(whatever_call_fails_is_an_error_and_nothing_is_left);
    let options = gpu.options(Arithmetic::F16);
    whole_life(&options).unwrap();
    each_call_fails(&gpu, &options, 1);
}

#[test]
fn whatever_call_fails_while_kernels_are_tried_is_an_error_and_nothing_is_left() {
    let gpu = alone!(whatever_call_fails_while_kernels_are_tried_is_an_error_and_nothing_is_left);
    each_call_fails(&gpu, &CudaOptions { choose_again: true, ..gpu.options(Arithmetic::F16) }, 29);
}

#[test]
fn whatever_call_fails_while_kernels_are_compiled_is_an_error_and_nothing_is_left() {
    let gpu = alone!(whatever_call_fails_while_kernels_are_compiled_is_an_error_and_nothing_is_left);
    // Nothing is kept.
    let nowhere = gpu.cache.path().join("file");
    fs::write(&nowhere, "").unwrap();
    each_call_fails(&gpu, &CudaOptions { cache: Some(nowhere), ..gpu.options(Arithmetic::F16) }, 31);
}

#[test]
fn after_an_error_the_device_computes_on() {
    let gpu = alone!(after_an_error_the_device_computes_on);
    let cuda = gpu.open(Arithmetic::F16);
    let encoder = encoder(&cuda).unwrap();
    let lengths: [&[usize]; 2] = [&[14, 190], &[7]];
    let expected = lengths.map(|lengths| forward(&cuda, &encoder, lengths).unwrap());
    gpu.recover();
    forward(&cuda, &encoder, lengths[0]).unwrap();
    let calls = gpu.count("calls");
    assert!(calls > 5, "{calls}");
    for call in 0..calls {
        gpu.fail(call, OUT_OF_MEMORY, false);
        let error = forward(&cuda, &encoder, lengths[0]).err();
        assert!(error.as_ref().is_none_or(is_known), "call {call}: {error:?}");
        gpu.recover();
        assert_eq!(lengths.map(|lengths| forward(&cuda, &encoder, lengths).unwrap()), expected, "behind call {call}");
    }
}

#[test]
fn a_device_that_is_lost_is_an_error_each_time() {
    let gpu = alone!(a_device_that_is_lost_is_an_error_each_time);
    let options = gpu.options(Arithmetic::F16);
    let cuda = Cuda::new(CudaDevice::new(&options).unwrap());
    let encoder = encoder(&cuda).unwrap();
    forward(&cuda, &encoder, &[14, 190]).unwrap();
    gpu.fail(0, ILLEGAL_ADDRESS, true);
    for lengths in [&[14, 190][..], &[7]] {
        let error = forward(&cuda, &encoder, lengths).unwrap_err();
        assert!(is_known(&error), "{error:?}");
    }
    assert!(is_known(&whole_life(&options).unwrap_err()));
    drop((cuda, encoder));
}

#[test]
fn threads_share_a_device() {
    let gpu = alone!(threads_share_a_device);
    let cuda = gpu.open(Arithmetic::F16);
    let encoder = encoder(&cuda).unwrap();
    let lengths: [&[usize]; 5] = [&[3], &[14], &[9, 130, 2], &[14; 20], &[190, 14]];
    // Each shape is recorded while others run, and results are held while programs run that would write over them.
    let work = |first: usize| {
        let held: Vec<_> = (0..40)
            .map(|turn| {
                let lengths = lengths[(first + turn) % lengths.len()];
                assert_eq!(forward(&cuda, &encoder, lengths).unwrap().len(), lengths.len() * 256);
                (encoder.forward(&cuda, &batch(lengths)).unwrap(), lengths)
            })
            .collect();
        for (hidden, lengths) in held {
            assert_eq!(cuda.read(&hidden.tensor).unwrap().len(), lengths.iter().sum::<usize>() * 256);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|first| drop(scope.spawn(move || work(first)))));
    drop((encoder, cuda));
    assert_eq!(gpu.alive(), []);
}
