//! One cell of a plan: the golden result, everybody's values against it, and then everybody's times in shuffled rounds.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::abreast::abreast;
use super::crew::cores;
use super::seat::Seat;
use super::verify::{Limit, compare};
use super::{Ended, Event, Runner, key};
use crate::Error;
use crate::plan::{Effort, Given, Schedule, Task};
use crate::protocol::{Request, Times};
use crate::random::Random;
use crate::record::{Cell, Check, Failure, Line, Measured, Outcome, Row, Variant};
use crate::worker::failure;

/// How much quicker than the machine's measured peak of f32 a CPU may seem: the peak is measured once, on a machine that
/// may be busy, and some CPUs have units for matrices that it does not know.
const BEYOND_PEAK: f64 = 4.0;

/// How long everybody rests before a turn, where there are several. Engines' threads look for more work for a while when theirs is
/// done: PyTorch's take a core for 10 ms, and who is next would miss it.
const REST: Duration = Duration::from_millis(25);

impl Runner<'_> {
    /// One cell: every worker's values, then everybody's times in turns.
    pub(super) fn cell(
        &mut self,
        process: usize,
        effort: Effort,
        task: &Task,
        golden: &mut Seat<'_>,
        seats: &mut [&mut Seat<'_>],
        random: &mut Random,
    ) -> Result<(), Ended> {
        let cell = &task.cell.id;
        let folder = tempfile::Builder::new().prefix("cell-").tempdir_in(self.scratch.path());
        let folder = folder.map_err(Error::io("create", self.scratch.path()))?;
        let (request, limit) = match &task.given {
            Given::Texts(ids) => (Request::Batch { ids: ids.clone() }, Limit::Model),
            Given::Case(case) => {
                let request = case.write_inputs(self.study.seed, folder.path())?;
                (Request::Operation(request), Limit::Operation { terms: case.form()?.terms })
            }
        };
        let expected = folder.path().join("golden.bin");
        (self.hear)(Event::Turn { cell, variant: &golden.variant });
        let shape = golden.prepare(&request).and_then(|()| golden.output(&expected));
        self.go_on()?;
        let shape = shape.map_err(|f| failure("golden", format!("{}: {}: {}", golden.variant, f.stage, f.message)));
        let name = golden.variant.to_string();

        // Nothing is timed yet, so that as many work side by side as do not share cores.
        let variants: Vec<Variant> = seats.iter().map(|seat| seat.variant.clone()).collect();
        let mut begun = |place: usize| (self.hear)(Event::Turn { cell, variant: &variants[place] });
        let (paces, accelerator) = (&self.paces, Mutex::new(()));
        let check = |(place, seat): (usize, &mut Seat<'_>)| {
            let shape = shape.as_ref().map_err(Clone::clone)?;
            paces.in_time(&task.cell, &seat.variant, effort)?;
            seat.load()?;
            let found = folder.path().join(format!("found-{place}.bin"));
            let got = {
                // Engines choose by its time how they compute, when they first do. On a GPU that others were using meanwhile f32
                // took 25 ms for what takes 19.
                let _alone =
                    (!seat.variant.is_on_cpu()).then(|| accelerator.lock().unwrap_or_else(PoisonError::into_inner));
                seat.prepare(&request)?;
                seat.output(&found)?
            };
            let checked = compare((&expected, shape), (&found, &got), &seat.variant.dtype, limit, name.clone());
            // The folder goes with the cell; until then many of them could fill a disk.
            let _ = std::fs::remove_file(&found);
            checked
        };
        let at_once = cores() / self.study.threads.max(1);
        let checks =
            abreast(seats.iter_mut().map(|seat| &mut **seat).enumerate().collect(), at_once, &mut begun, check);
        self.go_on()?;
        let told = |(seat, check): (&&mut Seat<'_>, Result<Check, Failure>)| {
            check.map(|check| Measured {
                host_ns: Vec::new(),
                device_ns: None,
                check,
                load_seconds: seat.load_seconds(),
                peak_memory: None,
                joules: None,
                detail: seat.detail(),
            })
        };
        let mut results: Vec<Result<Measured, Failure>> = seats.iter().zip(checks).map(told).collect();
        self.times(&task.cell, effort, seats, &mut results, random)?;
        for (seat, result) in seats.iter().zip(&mut results) {
            let implausible = result.as_ref().ok().and_then(|m| self.implausible(&seat.variant, &task.cell, m));
            if let Some(failed) = implausible {
                *result = Err(failed);
            }
        }
        for (seat, result) in seats.iter().zip(results) {
            let outcome = match result {
                Ok(measured) => Outcome::Measured(Measured { peak_memory: seat.peak_memory(), ..measured }),
                Err(failed) => Outcome::Failed(failed),
            };
            let row =
                Row { run: self.run.clone(), cell: task.cell.clone(), variant: seat.variant.clone(), process, outcome };
            let row = Line::Row(row);
            self.writer.append(&row)?;
            let Line::Row(row) = row else { continue };
            match row.outcome {
                Outcome::Measured(_) => self.summary.measured += 1,
                Outcome::Failed(_) => self.summary.failed += 1,
            }
            self.done.insert(key(&row));
            (self.hear)(Event::Row(&row));
        }
        Ok(())
    }

    /// Warms up and times those whose values were right, in shuffled rounds. A failure takes its times away.
    fn times(
        &mut self,
        cell: &Cell,
        effort: Effort,
        seats: &mut [&mut Seat<'_>],
        results: &mut [Result<Measured, Failure>],
        random: &mut Random,
    ) -> Result<(), Ended> {
        let mut schedules = vec![Schedule { iterations: 0, rounds: 0 }; seats.len()];
        let rest = if seats.len() > 1 { REST } else { Duration::ZERO };
        for ((seat, result), schedule) in seats.iter_mut().zip(results.iter_mut()).zip(&mut schedules) {
            if result.is_err() {
                continue;
            }
            (self.hear)(Event::Turn { cell: &cell.id, variant: &seat.variant });
            thread::sleep(rest);
            match warm_up(seat, effort) {
                Ok(seconds) => {
                    self.paces.note(cell, &seat.variant, seconds);
                    *schedule = effort.schedule(seconds);
                }
                Err(failed) => *result = Err(failed),
            }
            self.go_on()?;
        }
        let mut order: Vec<usize> = (0..seats.len()).collect();
        for round in 0..effort.rounds {
            random.shuffle(&mut order);
            for &i in &order {
                let Schedule { iterations, rounds } = schedules[i];
                let Ok(measured) = &mut results[i] else { continue };
                if round >= rounds {
                    continue;
                }
                let seat = &mut *seats[i];
                (self.hear)(Event::Turn { cell: &cell.id, variant: &seat.variant });
                thread::sleep(rest);
                let start = Instant::now();
                let before = self.meters.read(&seat.variant.device);
                let times: Result<Times, Failure> = seat.ask(&Request::Run { iterations });
                let after = self.meters.read(&seat.variant.device);
                match times.and_then(|times| whole(times, iterations)) {
                    Ok(times) => {
                        let joules = before.zip(after).and_then(|(b, a)| b.until(a, start.elapsed()));
                        add(measured, times, joules.map(|joules| joules / iterations as f64), rounds);
                    }
                    Err(failed) => results[i] = Err(failed),
                }
                self.go_on()?;
            }
        }
        Ok(())
    }

    /// A time in which this CPU cannot have computed the cell: its worker did not wait for the result.
    fn implausible(&self, variant: &Variant, cell: &Cell, measured: &Measured) -> Option<Failure> {
        let on_cpu = variant.is_on_cpu() && variant.dtype == "f32";
        let peak = self.limits.as_ref()?.gflops.get("f32").filter(|_| on_cpu)?;
        let least = cell.flops as f64 / (peak * BEYOND_PEAK);
        let quickest = *measured.host_ns.iter().flatten().min()?;
        let told = || format!("{quickest} ns for what takes this machine {:.0} ns at its peak", least * BEYOND_PEAK);
        ((quickest as f64) < least).then(|| failure("implausible", told()))
    }
}

/// Runs that do not count; gives the seconds of the quickest. Slow ones are not repeated beyond their share of time. The first
/// run was that of the result that was checked: what it took tells nothing by itself, since kernels may have been compiled in it.
fn warm_up(seat: &mut Seat<'_>, effort: Effort) -> Result<f64, Failure> {
    let first = seat.output_seconds().filter(|&seconds| seconds > 0.0);
    let (mut quickest, mut spent) = (first.unwrap_or(f64::INFINITY), 0.0);
    for _ in 0..effort.warmup.max(1) {
        if spent > effort.at_most_seconds {
            break;
        }
        let times: Times = seat.ask(&Request::Run { iterations: 1 })?;
        let seconds = whole(times, 1)?.host_ns[0] as f64 / 1e9;
        quickest = quickest.min(seconds);
        spent += seconds;
    }
    Ok(quickest)
}

/// Refuses times that cannot be: another number of them than iterations, or none at all for work that takes some.
fn whole(times: Times, iterations: usize) -> Result<Times, Failure> {
    let counts = [Some(times.host_ns.len()), times.device_ns.as_ref().map(Vec::len)];
    if counts.into_iter().flatten().any(|count| count != iterations) {
        return Err(failure("protocol", format!("{counts:?} times for {iterations} iterations")));
    }
    if times.host_ns.contains(&0) {
        return Err(failure("protocol", "an iteration that took no time".into()));
    }
    Ok(times)
}

fn add(measured: &mut Measured, times: Times, joules: Option<f64>, rounds: usize) {
    measured.host_ns.push(times.host_ns);
    if let Some(device) = times.device_ns {
        measured.device_ns.get_or_insert_default().push(device);
    }
    // An engine that counts for itself knows better.
    if let Some(joules) = times.joules.or(joules) {
        *measured.joules.get_or_insert(0.0) += joules / rounds as f64;
    }
}
