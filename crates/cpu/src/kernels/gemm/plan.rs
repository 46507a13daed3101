//! How a product of rows and packed weights is cut into tasks: a block of rows times a range of weight panels each.

use std::ops::Range;
use std::sync::Arc;

use mlxt_backend::Result;

use super::tile::Panels;
use crate::arena::Arena;
use crate::threads::{Claims, Pool, Shareable};

/// Tasks for each thread, so that one that loses its core for a while leaves its share to the others. A thread that claims
/// one waits until all it has written is its own: with 8 tasks, 14 rows take 4 % longer.
const TASKS_EACH: usize = 4;
/// Panels of rows for each thread from which on threads share out the rows and not the weights: a thread then packs
/// only rows that it wrote itself for the most part (110 rows: 4 % faster), but reads all weights (42 rows: 3 % slower).
const PANELS_EACH: usize = 3;

/// How a product is cut into tasks.
pub(crate) struct Plan {
    /// Panels of rows, each one tile high.
    row_panels: Panels,
    /// Blocks of row panels.
    blocks: Panels,
    /// Ranges of weight panels.
    ranges: Panels,
    tile_rows: usize,
}

impl Plan {
    /// Of `rows` rows in tiles of `tile_rows`, no more than `block_rows` of them in a block if that is a tile or more, by
    /// `weight_panels` panels of weights; in one task if the whole is `small`.
    pub(crate) fn new(
        rows: usize,
        (tile_rows, block_rows): (usize, usize),
        weight_panels: usize,
        small: bool,
        threads: usize,
    ) -> Self {
        let threads = if small { 1 } else { threads };
        let tiles = rows.div_ceil(tile_rows);
        let blocks = tiles.div_ceil((block_rows / tile_rows).max(1));
        // As many blocks for each thread, and as many tiles in each block. Tiles have four rows or more, so none is empty.
        let blocks = if tiles < PANELS_EACH * threads { blocks } else { blocks.next_multiple_of(threads) };
        let row_panels = Panels::of(rows, tiles.next_multiple_of(blocks));
        let wanted = if threads == 1 { 1 } else { threads * TASKS_EACH };
        let ranges = Panels::of(weight_panels, wanted.div_ceil(blocks).min(weight_panels));
        Self { row_panels, blocks: Panels::of(row_panels.count(), blocks), ranges, tile_rows }
    }

    /// Calls `body` for every task, each thread with `room` values of its own.
    ///
    /// # Errors
    /// Out of memory for the room.
    pub(crate) fn run(
        &self,
        (pool, arena): (&Pool, &Arc<Arena>),
        room: usize,
        body: impl Fn(&mut [f32], Part) + Sync,
    ) -> Result<()> {
        let slots = if self.tasks() == 1 { 1 } else { pool.threads() };
        let mut all = arena.take(room * slots)?;
        let all = Shareable(all.as_mut_ptr());
        pool.run(self.tasks(), |slot, claims| {
            // SAFETY: there is room for `slots` threads, and no two have the same slot.
            let own = unsafe { std::slice::from_raw_parts_mut(all.get().add(slot * room), room) };
            let mut filled = None;
            for task in claims {
                let (block, panels) = self.task(task);
                let fresh = filled != Some(block);
                filled = Some(block);
                let (after, packed_next) = (self.after(task, pool.threads()), self.packed_next(task, pool.threads()));
                body(own, Part { rows: self.rows(block), panels, fresh, after, packed_next });
            }
        });
        Ok(())
    }

    fn tasks(&self) -> usize {
        self.blocks.count() * self.ranges.count()
    }

    /// The block of rows and the weight panels of a task.
    fn task(&self, task: usize) -> (usize, Range<usize>) {
        (task / self.ranges.count(), self.ranges.range(task % self.ranges.count()))
    }

    /// What a thread that is left alone with its share does after a task.
    fn after(&self, task: usize, threads: usize) -> After {
        let share = Claims::share(task, threads, self.tasks());
        if share.contains(&(task + 1)) {
            After::Panel(self.task(task + 1).1.start)
        } else {
            After::Share(self.task(share.start).1.start)
        }
    }

    /// The rows that a thread which is left alone with its share packs after a task; none if they are packed, or its share is done.
    fn packed_next(&self, task: usize, threads: usize) -> Range<usize> {
        let (next, block) = (task + 1, self.task(task).0);
        if !Claims::share(task, threads, self.tasks()).contains(&next) || self.task(next).0 == block {
            return 0..0;
        }
        self.rows(block + 1).all()
    }

    /// The panels of rows of a block, as their first rows and the end.
    fn rows(&self, block: usize) -> RowBlock {
        RowBlock { row_panels: self.row_panels, panels: self.blocks.range(block) }
    }

    /// The panels of all rows.
    pub(crate) fn row_panels(&self) -> Panels {
        self.row_panels
    }

    /// An upper bound for the rows of a block.
    pub(crate) fn largest_block(&self) -> usize {
        self.row_panels.count().div_ceil(self.blocks.count()) * self.tile_rows
    }
}

/// One task.
pub(crate) struct Part {
    pub(crate) rows: RowBlock,
    /// The weight panels.
    pub(crate) panels: Range<usize>,
    /// Whether the room has yet to be filled with these rows.
    pub(crate) fresh: bool,
    pub(crate) after: After,
    /// The rows that are mostly packed after this task, if any are.
    pub(crate) packed_next: Range<usize>,
}

/// Which weights a thread needs after a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// This panel.
    Panel(usize),
    /// Its share is done, which began with this panel.
    Share(usize),
}

/// Some panels of rows.
#[derive(Clone)]
pub(crate) struct RowBlock {
    row_panels: Panels,
    panels: Range<usize>,
}

impl RowBlock {
    /// The rows of each panel.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.panels.clone().map(|i| self.row_panels.range(i))
    }

    /// Their number.
    pub(crate) fn count(&self) -> usize {
        self.panels.len()
    }

    /// The first row of all.
    pub(crate) fn first(&self) -> usize {
        self.row_panels.range(self.panels.start).start
    }

    /// All rows, which are at least one.
    fn all(&self) -> Range<usize> {
        self.first()..self.row_panels.range(self.panels.end - 1).end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(plan: &Plan) -> Vec<After> {
        (0..plan.tasks()).map(|task| plan.after(task, 2)).collect()
    }

    #[test]
    fn threads_share_out_the_weights_for_few_rows() {
        let plan = Plan::new(14, (14, 126), 24, false, 2);
        assert_eq!((plan.blocks.count(), plan.ranges.count()), (1, 8));
        let panel = After::Panel;
        let [first, second] = [After::Share(0), After::Share(12)];
        assert_eq!(after(&plan), [panel(3), panel(6), panel(9), first, panel(15), panel(18), panel(21), second]);
    }

    #[test]
    fn threads_share_out_the_rows_where_each_gets_some_tiles() {
        let plan = Plan::new(110, (14, 126), 24, false, 2);
        assert_eq!([0, 1].map(|i| (plan.rows(i).first(), plan.rows(i).count())), [(0, 4), (55, 4)]);
        assert_eq!(
            after(&plan)[3..],
            [After::Share(0), After::Panel(6), After::Panel(12), After::Panel(18), After::Share(0)]
        );
        // What one thread does, or what is small, is cut for the caches alone.
        for (small, threads) in [(true, 2), (false, 1)] {
            let plan = Plan::new(110, (14, 126), 24, small, threads);
            assert_eq!((plan.tasks(), plan.after(0, threads)), (1, After::Share(0)));
        }
    }

    #[test]
    fn rows_are_packed_block_by_block() {
        let plan = Plan::new(300, (14, 126), 24, false, 2);
        let blocks: Vec<_> = (0..plan.tasks()).map(|task| plan.task(task).0).collect();
        assert_eq!(blocks, [0, 0, 1, 1, 2, 2, 3, 3]);
        let next: Vec<_> = (0..plan.tasks()).map(|task| plan.packed_next(task, 2)).collect();
        assert_eq!(next, [0..0, 75..150, 0..0, 0..0, 0..0, 225..300, 0..0, 0..0]);
    }

    #[test]
    fn tiles_are_neither_empty_nor_too_high() {
        for sizes in [(14, 126), (14, 1), (4, 4), (4, 9), (7, 60)] {
            for (rows, threads) in (1..300).flat_map(|rows| [1, 2, 3, 8, 16].map(|threads| (rows, threads))) {
                let plan = Plan::new(rows, sizes, 5, false, threads);
                for block in 0..plan.blocks.count() {
                    let heights: Vec<_> = plan.rows(block).iter().map(|rows| rows.len()).collect();
                    assert!(!heights.is_empty() && heights.iter().sum::<usize>() <= plan.largest_block());
                    let fit = heights.iter().all(|height| (1..=sizes.0).contains(height));
                    assert!(fit, "{heights:?} of {rows} rows, {sizes:?}, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn every_row_meets_every_weight_once() {
        for (rows, panels, threads) in
            [(1, 1, 1), (1, 1, 3), (14, 5, 2), (85, 1, 2), (110, 72, 2), (253, 24, 3), (2000, 96, 8)]
        {
            let plan = Plan::new(rows, (14, 126), panels, false, threads);
            let mut met = vec![0; rows * panels];
            for task in 0..plan.tasks() {
                let (block, panels_of_task) = plan.task(task);
                for row in plan.rows(block).iter().flatten() {
                    panels_of_task.clone().for_each(|panel| met[row * panels + panel] += 1);
                }
            }
            assert_eq!(met, vec![1; rows * panels], "{rows} rows, {panels} panels, {threads} threads");
        }
    }
}
