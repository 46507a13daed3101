//! What is refused once an MLX is loaded.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;
#[path = "common/opened.rs"]
mod opened;

use std::fs;

use mlxt_backend::{Arithmetic, Error};
use mlxt_mlx::{Installation, Kind, LoadError, MlxDevice, MlxOptions};

#[test]
fn the_wheel_for_the_cpu_has_no_gpu() {
    let Some(installation) = common::installation() else { return };
    let opened =
        MlxDevice::new(MlxOptions { kind: Kind::Gpu, installation: Some(installation), ..MlxOptions::default() });
    match opened {
        Ok(_) => println!("not checked: this MLX has a GPU"),
        Err(error) => assert!(matches!(error, LoadError::CpuOnly { .. }), "{error}"),
    }
}

/// Two have the same symbols: what belongs to one would be handed to the other.
#[test]
fn a_second_mlx_is_never_loaded() {
    let Some(installation) = common::installation() else { return };
    assert!(opened::mlx(MlxOptions::default()).is_some());
    let other = tempfile::tempdir().unwrap();
    for part in ["lib", "include/mlx"] {
        fs::create_dir_all(other.path().join(part)).unwrap();
    }
    let library = installation.library();
    fs::copy(&library, other.path().join("lib").join(library.file_name().unwrap())).unwrap();
    let header = "include/mlx/version.h";
    fs::copy(installation.folder.join(header), other.path().join(header)).unwrap();
    let second = Installation::at(other.path(), "a test").unwrap();
    match MlxDevice::new(MlxOptions { installation: Some(second), ..MlxOptions::default() }) {
        Ok(_) => panic!("a second MLX was loaded"),
        Err(error) => assert!(matches!(error, LoadError::OtherLoaded { .. }), "{error}"),
    }
    assert!(MlxDevice::new(MlxOptions { installation: Some(installation), ..MlxOptions::default() }).is_ok());
}

#[test]
fn what_a_device_cannot_do_is_never_replaced() {
    let Some(installation) = common::installation() else { return };
    let refused = |options: MlxOptions| {
        let opened = MlxDevice::new(MlxOptions { installation: Some(installation.clone()), ..options });
        matches!(opened, Err(LoadError::Backend(Error::Unsupported { backend: "mlx", .. })))
    };
    assert!(refused(MlxOptions { compile: Some(true), ..MlxOptions::default() }));
    assert!(refused(MlxOptions { arithmetic: Arithmetic::Tf32, ..MlxOptions::default() }));
}
