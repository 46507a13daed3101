//! Who takes part: the variants of a plan that can run on this machine, and how many of them at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use super::abreast::abreast;
use super::{Ended, Event, Runner, Study};
use crate::Error;
use crate::machine;
use crate::peers::{Home, Kind, Pattern, Peers};
use crate::plan::Group;
use crate::protocol::{Loaded, Request, Setting};
use crate::record::{Failure, PeerInfo, Variant};
use crate::worker::Worker;

/// What share of the free memory workers may fill together; the rest is for inputs, results and the system.
const MEMORY_SHARE: f64 = 0.75;
/// Bytes a worker needs for each byte of a checkpoint: the engine's own copy, and what it computes with.
const COPIES: f64 = 1.6;

/// Those that were tried, by what they are called, and what came of it.
pub(super) type Known = BTreeMap<String, Result<PeerInfo, String>>;

/// The variants of one kind that can run here, and the golden one.
pub(super) struct Crew {
    pub(super) golden: Variant,
    pub(super) variants: Vec<Variant>,
}

/// Whether a peer's mode can run on a device here, and who it says it is.
///
/// # Errors
/// Why it cannot, and what mends it.
pub fn usable(
    home: &Home,
    peers: &Peers,
    variant: &Variant,
    threads: usize,
    stop: &Arc<AtomicBool>,
) -> Result<PeerInfo, String> {
    let peer = peers.find(&variant.peer).map_err(|e| e.to_string())?;
    let launch = home.launch(peers, peer, &variant.mode, threads)?;
    let timeout = Duration::from_mins(2);
    let said = |f: Failure| format!("{}: {}", f.stage, f.message);
    let mut worker = Worker::start(&launch, timeout, stop).map_err(said)?;
    let setting = setting(variant, threads);
    worker.ask::<Loaded>(&Request::Open { setting }, timeout).map_err(said)?;
    let hello = worker.hello();
    Ok(PeerInfo { title: peer.title.clone(), version: hello.version.clone(), detail: hello.detail.clone() })
}

/// What a worker is told of its variant.
pub(super) fn setting(variant: &Variant, threads: usize) -> Setting {
    let Variant { mode, device, dtype, .. } = variant.clone();
    Setting { device, dtype, mode, threads }
}

/// How many processes that do not share the work among threads the machine has room for.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Runner<'_> {
    /// Finds out which variants of a kind can run here, and who of them is golden.
    pub(super) fn crew(&mut self, kind: Kind, known: &mut Known) -> Result<Crew, Ended> {
        let Study { plan, peers, .. } = *self.study;
        let can = |known: &Known, variant: &Variant| known.get(&name(variant)).is_some_and(Result::is_ok);
        let mut variants = peers.variants(kind, &plan.variants);
        let candidates: Vec<_> =
            plan.golden.iter().flat_map(|pattern| peers.variants(kind, std::slice::from_ref(pattern))).collect();
        // One golden engine is enough: others are tried only if it cannot run.
        self.meet(variants.iter().chain(candidates.first()), known)?;
        variants.retain(|variant| can(known, variant));
        let mut golden = None;
        for candidate in candidates {
            self.meet([&candidate], known)?;
            if can(known, &candidate) {
                golden = Some(candidate);
                break;
            }
        }
        let nobody = |what: String| Ended::Failed(Error::Plan { name: plan.name.clone(), what });
        let patterns = |all: &[Pattern]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if variants.is_empty() {
            return Err(nobody(format!("none of {} can run here", patterns(&plan.variants))));
        }
        let golden = golden
            .ok_or_else(|| nobody(format!("no golden engine: none of {} can run here", patterns(&plan.golden))))?;
        Ok(Crew { golden, variants })
    }

    /// Starts those that were not tried yet, side by side, and notes what came of it.
    fn meet<'v>(&mut self, variants: impl IntoIterator<Item = &'v Variant>, known: &mut Known) -> Result<(), Ended> {
        let mut strangers: Vec<&Variant> = Vec::new();
        for variant in variants {
            if !known.contains_key(&name(variant)) && strangers.iter().all(|s| name(s) != name(variant)) {
                strangers.push(variant);
            }
        }
        let Study { peers, home, threads, ref stop, .. } = *self.study;
        let mut tell = |place: usize| (self.hear)(Event::Doing(format!("starting {}", name(strangers[place]))));
        let start = |variant: &Variant| usable(home, peers, variant, threads, stop);
        let found = abreast(strangers.clone(), cores(), &mut tell, start);
        self.go_on()?;
        for (variant, found) in strangers.into_iter().zip(found) {
            if let Err(reason) = &found {
                (self.hear)(Event::Absent { variant, reason });
            }
            known.insert(name(variant), found);
        }
        Ok(())
    }
}

/// What can run, or not, whatever the element type.
fn name(variant: &Variant) -> String {
    format!("{}/{}/{}", variant.peer, variant.mode, variant.device)
}

/// The variants of a group, cut into parts whose workers fit into memory side by side.
pub(super) fn together(crew: &Crew, group: &Group) -> Vec<Vec<Variant>> {
    let (Some(model), Some(memory)) = (group.model, machine::available_memory()) else {
        return vec![crew.variants.clone()];
    };
    // Two places are the golden engine's: it computes in 64 bits.
    let places = MEMORY_SHARE * memory as f64 / (COPIES * model.bytes() as f64) - 2.0;
    crew.variants.chunks((places as usize).max(1)).map(<[_]>::to_vec).collect()
}
