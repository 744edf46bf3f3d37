//! What a survivor does for a thread that died in the middle of an operation: finishes it, or undoes it.
//!
//! Everything here can be done twice, since the survivor may die as well. In order: was the deed done? Then blocks that
//! came in are the index's, and those that went are retired; else the heap frees what came in, as held blocks. Then the
//! intent is idle: what follows no longer needs it. Then the locks: of the entry, of both pages (with every entry in
//! them, and the count), of directories, of the checkpoints.

use super::Store;
use super::entry::Entry;
use super::intent::{
    DIRECTORY, ENTRY, IDLE, INSERT, Intent, KEY, NEW, OLD, PAGE, PAGE2, REMOVE, SPLIT, STAGE, UPDATE,
};
use super::layout::open;
use super::page::Page;
use std::sync::atomic::Ordering;
use tarragon_transport::agent::{AgentId, AgentRecord};
use tarragon_transport::member::Settle;
use tarragon_transport::segment::Segment;

impl Settle for Store {
    fn settle(&self, _: &Segment, dead: AgentId, record: &AgentRecord) {
        let intent = Intent::of(record);
        match intent.kind() {
            UPDATE | INSERT | REMOVE => self.settle_entry(dead, record, &intent),
            SPLIT => {
                if let Ok(agent) = self.segment.agent() {
                    // Damaged pages cannot be settled; their users are told so when they come there.
                    let _ = self.settle_split(&agent, record, &intent);
                }
            }
            _ => {}
        }
        self.settle_directory(record, &intent);
        // Before any lock opens: from then on others change what the intent speaks of, and nobody may settle it again.
        record.intent[STAGE].store(IDLE, Ordering::Release);
        let noted = |word| Some(intent.word(word)).filter(|offset| *offset != 0);
        if let Some(entry) = noted(ENTRY).and_then(|offset| self.segment.at::<Entry>(offset)) {
            entry.unlock(dead);
        }
        for page in [PAGE, PAGE2].map(noted).into_iter().flatten() {
            let page = self.segment.at::<Page>(page);
            if let Some(page) = page.filter(|page| page.lock.owner() == Some(dead)) {
                page.recount();
                self.let_go(dead, page);
                page.lock.release_for(dead);
            }
        }
        for shard in 0..self.options.shards {
            self.shard_at(shard).lock.release_for(dead);
        }
        self.root().turn.release_for(dead);
    }
}

impl Store {
    fn settle_entry(&self, dead: AgentId, record: &AgentRecord, intent: &Intent) {
        let Some(entry) = self.segment.at::<Entry>(intent.word(ENTRY)) else { return };
        if entry.load().version() == intent.before() {
            return;
        }
        let (came, went): (&[usize], &[usize]) = match intent.kind() {
            UPDATE => (&[NEW], &[OLD]),
            INSERT => (&[NEW, KEY], &[]),
            _ => (&[], &[OLD, KEY]),
        };
        for block in came.iter().map(|word| intent.word(*word)).filter(|block| *block != 0) {
            self.segment.forget_for(record, block);
        }
        for block in went.iter().map(|word| intent.word(*word)).filter(|block| *block != 0) {
            self.segment.retire_for(dead, record, block);
        }
    }

    /// Whether the directory it made is in use.
    fn settle_directory(&self, record: &AgentRecord, intent: &Intent) {
        let made = intent.word(DIRECTORY);
        let mut directories = (0..self.options.shards).map(|shard| &self.shard_at(shard).directory);
        let is_used = |word: u64| open(word).is_some_and(|word| word & !63 == made);
        if made != 0 && directories.any(|word| is_used(word.load(Ordering::Acquire))) {
            self.segment.forget_for(record, made);
        }
    }
}
