//! Counting what is there.

use super::entry::{BLOCK, Entry, INLINE_MAX};
use super::layout::{DirectoryHead, open};
use super::page::{PAGE_BYTES, Page};
use super::{ShardFigures, Store, damaged};
use crate::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use tarragon_transport::heap::{Audit, Usage};

impl Store {
    /// Keys that the checkpoint sees. Looks at each page's head if checkpoints were never used, else at each key.
    pub(crate) fn len(&self, checkpoint: u32) -> Result<u64, Error> {
        self.admit_read(checkpoint)?;
        let mut count = 0;
        for shard in 0..self.options.shards {
            count += self.shard_len(shard, checkpoint)?;
        }
        Ok(count)
    }

    pub(crate) fn shard_len(&self, shard: u32, checkpoint: u32) -> Result<u64, Error> {
        let mut count = 0;
        if self.root().newest.load(Ordering::Relaxed) == 0 {
            self.each_page(shard, &mut |_, page| {
                count += page.live();
                Ok(())
            })?;
            return Ok(count);
        }
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.scan(shard, checkpoint, at, false, &mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            })?;
        }
        Ok(count)
    }

    pub(crate) fn figures(&self, shard: u32, checkpoint: u32) -> Result<ShardFigures, Error> {
        let mut figures = ShardFigures {
            keys: self.shard_len(shard, checkpoint)?,
            hits: self.hits(shard),
            waits: self.waits(shard),
            ..ShardFigures::default()
        };
        self.each_page(shard, &mut |_, page| {
            figures.pages += 1;
            for entry in &page.entries {
                if let Some((_, seen)) = self.look(entry, None)? {
                    let form = seen.ctl.form();
                    figures.value_bytes += match form {
                        BLOCK => seen.slot.len(),
                        short if short <= INLINE_MAX as u64 => short,
                        _ => 0,
                    };
                }
            }
            Ok(())
        })?;
        Ok(figures)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.segment.usage()
    }

    /// The newest checkpoint anybody wrote to, and the oldest that is kept.
    pub(crate) fn checkpoints(&self) -> (u32, u32) {
        let root = self.root();
        (root.newest.load(Ordering::Relaxed) as u32, root.oldest.load(Ordering::Relaxed) as u32)
    }

    /// Leaked and dangling blocks, while nobody writes.
    pub(crate) fn audit(&self) -> Result<Audit, Error> {
        let blocks = self.blocks()?;
        Ok(self.segment.audit(&mut |name| blocks.iter().for_each(|block| name(*block))))
    }

    /// Every block that the index leads to.
    fn blocks(&self) -> Result<Vec<u64>, Error> {
        let mut blocks = Vec::new();
        for shard in 0..self.options.shards {
            let mut directory = self.directory(self.shard_at(shard))?.offset;
            while directory != 0 {
                blocks.push(directory);
                let head = self.segment.at::<DirectoryHead>(directory);
                let previous = head.and_then(|head| open(head.previous.load(Ordering::Relaxed)));
                directory = previous.ok_or_else(|| damaged("the head of a directory", directory))?;
            }
            self.each_page(shard, &mut |offset, page| {
                debug_assert_eq!(offset % PAGE_BYTES, 0, "pages are aligned");
                blocks.push(offset);
                self.blocks_of(page, &mut blocks)
            })?;
        }
        Ok(blocks)
    }

    fn blocks_of(&self, page: &Page, blocks: &mut Vec<u64>) -> Result<(), Error> {
        for entry in &page.entries {
            let Some((_, seen)) = self.look(entry, None)? else { continue };
            blocks.extend(Self::block_of(seen.ctl, seen.slot));
            blocks.extend(key_block(entry));
        }
        Ok(())
    }
}

/// The block of a full entry's key, if it has one.
fn key_block(entry: &Entry) -> Option<u64> {
    (entry.meta().key_len() > INLINE_MAX as u64).then(|| entry.key()[0])
}
