//! How a product of rows and packed weights is cut into tasks: a block of rows times a range of weight panels each.

use std::ops::Range;
use std::sync::Arc;

use mlxt_backend::Result;

use super::tile::Panels;
use crate::arena::Arena;
use crate::threads::{Pool, Shareable};

/// Tasks for each thread, so that one that loses its core for a while leaves its share to the others.
const TASKS_EACH: usize = 8;

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
        let row_panels = Panels::new(rows, tile_rows);
        let blocks = Panels::new(row_panels.count(), (block_rows / tile_rows).max(1));
        let wanted = if small || threads == 1 { 1 } else { threads * TASKS_EACH };
        let ranges = wanted.div_ceil(blocks.count()).min(weight_panels);
        let ranges = Panels::new(weight_panels, weight_panels.div_ceil(ranges));
        Self { row_panels, blocks, ranges, tile_rows }
    }

    /// Calls `body` for every task, each thread with `room` values of its own, the rows and weight panels of the task, and
    /// whether the room has yet to be filled with those rows.
    ///
    /// # Errors
    /// Out of memory for the room.
    pub(crate) fn run(
        &self,
        (pool, arena): (&Pool, &Arc<Arena>),
        room: usize,
        body: impl Fn(&mut [f32], RowBlock, Range<usize>, bool) + Sync,
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
                body(own, self.rows(block), panels, fresh);
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
        self.blocks.range(0).len() * self.tile_rows
    }
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
}
