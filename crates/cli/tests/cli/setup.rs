//! `mlxt setup mlx`, with a `python3` that does what pip does and downloads nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::mlxt;

/// Notes its arguments; fails as the file `fails` beside it says; else leaves what pip would leave.
const PYTHON: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
[ "$1" = -m ] || exit 9
while [ $# -gt 0 ]; do
    case "$1" in
    download) step=download ;;
    install) step=install ;;
    --dest | --target) shift; folder=$1 ;;
    mlx-*) wheel=$1 ;;
    esac
    shift
done
if [ -n "$step" ] && [ -f "$here/fails" ] && grep -q "^$step " "$here/fails"; then
    sed "s/^$step //" "$here/fails" >&2
    exit 1
fi
case "$step" in
download) mkdir -p "$folder" && echo "Collecting $wheel" && : > "$folder/${wheel%%=*}.whl" ;;
install) mkdir -p "$folder/mlx/lib" "$folder/$(echo "${wheel%%=*}" | tr - _)-${wheel##*=}.dist-info" ;;
esac
"#;

struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let python = folder.path().join("python3");
        fs::write(&python, PYTHON).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn setup(&self, args: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
        let mut command = mlxt([&["setup", "mlx"], args].concat());
        command.env("XDG_DATA_HOME", self.folder.path().join("data")).env("PATH", path).output().unwrap()
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data/mlx-transformers")
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }

    fn fails(&self, how: &str) {
        fs::write(self.folder.path().join("fails"), how).unwrap();
    }

    fn works(&self) {
        fs::remove_file(self.folder.path().join("fails")).unwrap();
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn mlx_is_put_in_place_once_and_replaced_by_another_build() {
    let machine = Machine::new();
    let (status, out, err) = said(&machine.setup(&["--variant", "cpu"]));
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("MLX 0.32.4 cpu (asked for) is ready, in "), "{out}");
    assert_eq!(names(&machine.data()), ["mlx"]);
    assert_eq!(names(&machine.data().join("mlx")), ["mlx", "mlx_cpu-0.32.4.dist-info"]);
    let calls = machine.calls();
    assert!(calls.contains("--only-binary :all: --python-version 3.12"), "{calls}");
    assert!(calls.contains("--no-index"), "what is unpacked is what was fetched: {calls}");

    let (_, out, _) = said(&machine.setup(&["--variant", "cpu"]));
    assert!(out.contains("is there already"), "{out}");
    assert_eq!(machine.calls(), calls, "nothing is asked a second time");
    let closed = std::io::pipe().unwrap().1;
    let mut again = mlxt(["setup", "mlx", "--variant", "cpu"]);
    let output = again.env("XDG_DATA_HOME", machine.folder.path().join("data")).stdout(closed).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));

    for (variant, name, companion) in [
        ("cuda13", "mlx_cuda_13", "nvidia-cuda-crt==13.*"),
        ("cuda12", "mlx_cuda_12", "nvidia-cuda-runtime-cu12==12.9.*"),
    ] {
        let (status, out, _) = said(&machine.setup(&["--variant", variant]));
        assert_eq!(status, Some(0), "{out}");
        let wheel = format!("{name}-0.32.4.dist-info");
        assert_eq!(names(&machine.data().join("mlx")), ["mlx", wheel.as_str()]);
        // Once fetched and once unpacked; no other build needs it.
        let (calls, package) = (machine.calls(), name.replace('_', "-"));
        assert_eq!(calls.matches(&format!("{package}==0.32.4 {companion}\n")).count(), 2, "{calls}");
        assert_eq!(calls.matches(companion).count(), 2, "{calls}");
    }
}

#[test]
fn what_fails_says_what_mends_it_and_leaves_nothing_half() {
    let machine = Machine::new();
    machine.fails("download ERROR: Could not find a version: NewConnectionError('refused')");
    let (status, _, err) = said(&machine.setup(&["--variant", "cpu"]));
    assert_eq!((status, err.lines().count()), (Some(1), 1), "{err}");
    assert!(err.contains("cannot get MLX") && err.contains("there is no network"), "{err}");

    machine.fails("install ERROR: [Errno 28] No space left on device");
    let (status, _, err) = said(&machine.setup(&["--variant", "cpu"]));
    assert_eq!((status, err.lines().count()), (Some(1), 1), "{err}");
    assert!(err.contains("cannot unpack MLX") && err.contains("make room"), "{err}");
    assert_eq!(names(&machine.data()), ["mlx.partial"]);
    assert_eq!(names(&machine.data().join("mlx.partial/wheels")), ["mlx-cpu.whl"], "kept for the next run");

    machine.works();
    assert_eq!(said(&machine.setup(&["--variant", "cpu"])).0, Some(0));
    assert_eq!(names(&machine.data()), ["mlx"]);
}

#[test]
fn a_machine_without_python_is_told_so() {
    let machine = Machine::new();
    let empty = TempDir::new().unwrap();
    let mut command = mlxt(["setup", "mlx", "--variant", "cpu"]);
    let output = command.env("XDG_DATA_HOME", machine.folder.path()).env("PATH", empty.path()).output().unwrap();
    let (status, _, err) = said(&output);
    assert_eq!((status, err.lines().count()), (Some(1), 1), "{err}");
    assert!(err.contains("getting MLX takes Python") && err.contains("python3 cannot be started"), "{err}");
    assert_eq!(said(&machine.setup(&["--variant", "rocm"])).0, Some(2));
}
