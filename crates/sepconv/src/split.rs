//! How rows of a result and column panels are dealt out to tasks, each of which has a tile: every element to one of them
//! exactly, and all threads about as much.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::ThreadPool;

use crate::element::{Element, Number};
use crate::error::Error;
use crate::kernels::depthwise::Depthwise;
use crate::kernels::memory::{second_level_cache, with_scratch};
use crate::kernels::tile::{Tile, row_elements};
use crate::numerics::Subnormals;
use crate::subnormals::Flushing;
use crate::team;

/// Depthwise rows of a tile, together, are half of the second-level cache, but at least and at most so many: they stay there
/// beside a column panel of the filter while all panels pass by.
const TILE_BYTES: usize = 256 << 10;
const MOST_TILE_BYTES: usize = 512 << 10;

/// Most rows of a tile, unless two lines are more: so many share each load of the filter into the first-level cache that it
/// costs nothing, and with few channels they stay there themselves.
const TILE_ROWS: usize = 128;

/// What the depthwise half takes for a tap, in the time that the product takes for a column.
const TAP: usize = 3;

/// What it takes to bring the filter to the first-level cache, in the time that the product takes for a row.
const FETCH: usize = 4;

/// So many parts for each thread, and it matters little that one gets one more.
const FAIR: usize = 32;

/// How rows and column panels are dealt out to tasks.
#[derive(Clone, Debug)]
pub struct Split {
    k: usize,
    /// What is dealt out: so many times so many rows.
    lines: usize,
    line: usize,
    /// For how many rows the largest tile has room, and how many one takes at most.
    room: usize,
    most: usize,
    pub tiles: usize,
    panels: usize,
    /// Of column panels.
    pub groups: usize,
    threads: usize,
}

impl Split {
    /// By rows only, so many of which are in a tile whatever memory they take.
    pub fn new<T>(rows: usize, k: usize, threads: usize, least: usize) -> Self {
        let rows_of = |bytes: usize| bytes / (row_elements::<T>(k) * size_of::<T>()).max(1);
        let most = rows_of((second_level_cache() / 2).clamp(TILE_BYTES, MOST_TILE_BYTES)).clamp(least, TILE_ROWS);
        let room = rows_of(MOST_TILE_BYTES);
        let split = Self { k, lines: rows, line: 1, room, most, tiles: 1, panels: 1, groups: 1, threads };
        Self { tiles: split.tiles_for(threads), ..split }
    }

    /// By the rows of a depthwise part's result. Tiles begin with lines of the image, or with several that are better computed
    /// together, where these fill three quarters of a tile and no thread gets noticeably more than another; several may be as
    /// many as the largest tile has room for.
    pub fn of<T: Element>(depthwise: &Depthwise<T>, threads: usize) -> Self {
        let g = depthwise.geometry();
        let split = Self::new::<T::Sum>(g.rows(), g.k(), threads, 1);
        split.in_lines(g.height.output, g.width.output, depthwise.lines_together())
    }

    fn in_lines(self, height: usize, line: usize, together: usize) -> Self {
        let several = line.saturating_mul(together);
        let grows = together > 1 && several <= self.room;
        let most = if grows { self.most.max(several) } else { self.most };
        let begins_with = |rows: usize| {
            // Small tiles cost more than parts of lines do.
            if rows == 0 || 4 * (most / rows * rows) < 3 * most {
                return None;
            }
            let split = Self { lines: self.lines / rows, line: rows, most, ..self.clone() };
            let tiles = split.tiles_for(self.threads);
            let alike = split.lines.is_multiple_of(tiles.next_multiple_of(self.threads));
            let fair = self.threads == 1 || alike || split.lines >= FAIR * self.threads;
            fair.then_some(Self { tiles, ..split })
        };
        let whole = height.is_multiple_of(together).then_some(several);
        whole.into_iter().chain([line]).find_map(begins_with).unwrap_or(self)
    }

    /// As few as memory allows, as many for each of so many threads.
    fn tiles_for(&self, threads: usize) -> usize {
        self.lines.div_ceil(self.most / self.line).next_multiple_of(threads).min(self.lines).max(1)
    }

    /// By rows and column panels: what takes the least time. Each group of panels computes the depthwise part again.
    pub fn with_columns(self, panels: usize, panel_columns: usize, taps: usize) -> Self {
        let candidate = |groups: usize| {
            let tiles = self.tiles_for(self.threads.div_ceil(groups));
            let columns = panels.div_ceil(groups).saturating_mul(panel_columns).saturating_add(TAP * taps);
            let rows = self.lines.div_ceil(tiles) * self.line + FETCH;
            let steps = (tiles * groups).div_ceil(self.threads).saturating_mul(rows);
            (steps.saturating_mul(columns), groups, tiles)
        };
        let best = (1..=panels.min(self.threads)).map(candidate).min();
        let (_, groups, tiles) = best.unwrap_or((0, 1, self.tiles));
        Self { tiles, panels, groups, ..self }
    }

    /// The rows and the column panels of a task.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let (tile, group) = (task / self.groups, task % self.groups);
        let row = |tile: usize| (tile * (self.lines / self.tiles) + tile.min(self.lines % self.tiles)) * self.line;
        let panel = |group: usize| group * self.panels / self.groups;
        (row(tile)..row(tile + 1), panel(group)..panel(group + 1))
    }

    /// Calls `work` for every task, on as many threads, with a tile to fill (and so many rows that follow it), its first row,
    /// the column panels and more elements of scratch, as many as `scratch` says for so many rows.
    pub fn for_each<T: Number>(
        &self,
        pool: Option<&ThreadPool>,
        subnormals: Subnormals,
        following: usize,
        scratch: impl Fn(usize) -> usize + Sync,
        work: impl Fn(&mut Tile<T>, usize, Range<usize>, &mut [MaybeUninit<T>]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let task = |task: usize| self.run(task, subnormals, following, &scratch, &work);
        team::for_each(pool, self.threads, self.tiles * self.groups, &task)
    }

    /// One of these calls.
    pub fn run<T: Number>(
        &self,
        task: usize,
        subnormals: Subnormals,
        following: usize,
        scratch: &impl Fn(usize) -> usize,
        work: impl FnOnce(&mut Tile<T>, usize, Range<usize>, &mut [MaybeUninit<T>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (rows, panels) = self.task(task);
        let in_tile = (rows.len() + following) * row_elements::<T>(self.k);
        with_scratch(in_tile + scratch(rows.len()), |elements| {
            // A thread starts with its maker's state, so it is set anew in each task.
            let _flushing = Flushing::set(subnormals);
            let (in_tile, scratch) = elements.split_at_mut(in_tile);
            work(&mut Tile::new(in_tile, rows.len(), following, self.k), rows.start, panels, scratch)
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element of the result, given to one task exactly.
    #[test]
    fn a_split_covers_everything_once() {
        for (rows, k, panels, threads) in [
            (1, 1, 1, 1),
            (49, 1024, 32, 2),
            (12544, 32, 2, 2),
            (3, 70_000, 1, 4),
            (50, 600, 40, 16),
            (361, 728, 23, 3),
        ] {
            let split = Split::new::<f32>(rows, k, threads, 1).with_columns(panels, 32, 9);
            let mut seen = vec![0; rows * panels];
            for task in 0..split.tiles * split.groups {
                let (rows, columns) = split.task(task);
                assert!(rows.len() * row_elements::<f32>(k) * 4 <= MOST_TILE_BYTES.max(row_elements::<f32>(k) * 4));
                rows.for_each(|row| columns.clone().for_each(|column| seen[row * panels + column] += 1));
            }
            assert!(seen.iter().all(|&times| times == 1), "{split:?}");
        }
    }

    /// The same where tiles begin with lines, which they do for all of these.
    #[test]
    fn a_split_in_lines_covers_everything_once() {
        for ([batch, height, width], k, together, threads) in [
            ([1, 112, 112], 32, 2, 2),
            ([1, 147, 147], 64, 2, 1),
            ([3, 19, 19], 728, 2, 1),
            ([2, 14, 14], 512, 1, 2),
            ([1, 240, 240], 32, 2, 1),
        ] {
            let split = Split::new::<f32>(batch * height * width, k, threads, 1).in_lines(height, width, together);
            assert_eq!(split.tiles % threads, 0, "{split:?}");
            let mut next = 0;
            for task in 0..split.tiles {
                let (rows, _) = split.task(task);
                assert_eq!((rows.start, rows.start % width), (next, 0), "{split:?}");
                assert!(rows.len() * row_elements::<f32>(k) * 4 <= MOST_TILE_BYTES, "{split:?}");
                next = rows.end;
            }
            assert_eq!(next, batch * height * width, "{split:?}");
        }
    }

    /// Few lines for many threads are not what tiles begin with.
    #[test]
    fn lines_are_parted_where_threads_would_have_nothing_to_do() {
        for (size, k, threads) in
            [(14, 512, 8), (14, 512, 16), (28, 256, 16), (56, 128, 64), (112, 32, 16), (7, 1024, 16)]
        {
            let by_rows = Split::new::<f32>(size * size, k, threads, 1);
            let split = by_rows.clone().in_lines(size, size, 2);
            let slowest = |split: &Split| split.tiles.div_ceil(threads) * split.task(0).0.len();
            assert!(slowest(&split) * 20 <= slowest(&by_rows) * 21, "{split:?} {by_rows:?}");
        }
    }

    /// Few rows keep all threads busy by sharing the columns.
    #[test]
    fn few_rows_are_split_by_columns() {
        let split = Split::new::<f32>(49, 1024, 2, 1).with_columns(32, 32, 9);
        assert_eq!((split.tiles, split.groups), (1, 2));
        let split = Split::new::<f32>(12544, 32, 2, 1).with_columns(2, 32, 9);
        assert_eq!((split.tiles % 2, split.groups), (0, 1));
    }
}
