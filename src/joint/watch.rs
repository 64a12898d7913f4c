//! Signs of life. Each rank writes one into the store twice a second, with what it has done. A rank
//! that fails writes why; the others then end as well, and one of them says it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::hooks::RawStore;
use crate::notices::say;
use crate::temporary::clear_pending;

/// Time between two signs of life.
const PERIOD: Duration = Duration::from_millis(500);
/// A rank is lost after so many periods without a sign of life: 6 s.
const PATIENCE: u32 = 12;
/// The store is lost if it answers nothing for so many periods: 8 s.
const STORE_PATIENCE: u32 = 16;
/// A thread that ends the process is not waited for after so many periods more: 4 s.
const ENDING_PATIENCE: u32 = 8;
/// The longest wait for an answer of the store.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest wait for rank 0 to say why the run ends.
const SAYING: Duration = Duration::from_secs(3);

const FAILED: &str = "failed";
const SAID: &str = "said";

fn tick_key(rank: usize) -> String {
    format!("tick/{rank}")
}

/// Why the run ends.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    /// The rank that found out.
    by: usize,
    line: String,
}

/// A sign of life.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tick {
    number: u64,
    /// Images done in each stage.
    done: BTreeMap<String, u64>,
}

/// What the threads of a rank share.
#[derive(Debug)]
pub struct Watch {
    rank: usize,
    /// The host of each rank.
    hosts: Vec<String>,
    store: RawStore,
    /// The first connection, which serves the store on rank 0 as long as the process lives.
    _serving: RawStore,
    /// Why the run ends, until somebody says it.
    unsaid: Mutex<Option<String>>,
    tick: Mutex<Tick>,
    bar: Mutex<Option<(&'static str, ProgressBar)>>,
    /// Whether the run is complete.
    is_over: AtomicBool,
    /// Periods since the store answered.
    silent: AtomicU32,
    /// Held by the thread that ends the process.
    ending: Mutex<()>,
}

impl Watch {
    /// Writes the first sign of life of this rank into `store`, whose answers take `STORE_TIMEOUT` at
    /// most; `serving` lives as long as the process.
    ///
    /// # Errors
    /// Returns an error if the store is not reached.
    pub fn new(
        rank: usize,
        hosts: Vec<String>,
        store: RawStore,
        serving: RawStore,
    ) -> Result<Watch> {
        let watch = Watch {
            rank,
            hosts,
            store,
            _serving: serving,
            unsaid: Mutex::default(),
            tick: Mutex::default(),
            bar: Mutex::default(),
            is_over: AtomicBool::new(false),
            silent: AtomicU32::new(0),
            ending: Mutex::default(),
        };
        watch.sign()?;
        Ok(watch)
    }

    /// The host of a rank.
    pub fn host(&self, rank: usize) -> &str {
        self.hosts.get(rank).map_or("unknown host", String::as_str)
    }

    /// Watches in the background until the run is over.
    pub fn start(self: &Arc<Watch>) {
        let guard = self.clone();
        thread::spawn(move || guard.guard());
        let watch = self.clone();
        thread::spawn(move || watch.watch());
    }

    /// Ends the watch: the results of all ranks are complete. The store may be gone from then on.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Counts images of a stage.
    pub fn count(&self, stage: &str, images: u64) {
        *locked(&self.tick)
            .done
            .entry(stage.to_string())
            .or_default() += images;
    }

    /// Shows what all ranks have done in a stage.
    pub fn show(&self, stage: &'static str, bar: &ProgressBar) {
        *locked(&self.bar) = Some((stage, bar.clone()));
    }

    /// Ends the run on all ranks because of an error of this one, or because of an earlier one.
    /// One rank says why. Returns when the others know it; false if the run is over.
    pub fn fail(&self, line: &str) -> bool {
        let last = locked(&self.ending);
        if self.is_over.load(Ordering::SeqCst) {
            return false;
        }
        let line = format!("{} (rank {}): {line}", self.hosts[self.rank], self.rank);
        self.spread(&line);
        std::mem::forget(last); // nobody else says anything
        true
    }

    /// The loop of the first thread.
    fn watch(&self) {
        // For each rank, its last sign of life and the periods since.
        let mut seen = vec![(0, 0); self.hosts.len()];
        while !self.is_over.load(Ordering::SeqCst) {
            match self.look(&mut seen) {
                Ok(None) => self.silent.store(0, Ordering::SeqCst),
                Ok(Some(line)) => self.end(&line),
                Err(_) => self.lost_store(),
            }
            thread::sleep(PERIOD);
        }
    }

    /// The loop of the second thread: a call of the store may block for ever if the network is lost.
    /// Periods are counted, so that a process that was stopped does not take that for silence.
    fn guard(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let silent = self.silent.fetch_add(1, Ordering::SeqCst);
            if silent > STORE_PATIENCE {
                self.lost_store();
            }
            if silent > STORE_PATIENCE + ENDING_PATIENCE {
                // The thread that ends the process waits for the store.
                if let Some(line) = locked(&self.unsaid).take() {
                    say(&format!("error: {line}"));
                }
                self.leave();
            }
            thread::sleep(PERIOD);
        }
    }

    fn sign(&self) -> Result<()> {
        let mut tick = locked(&self.tick);
        tick.number += 1;
        self.store
            .set(&tick_key(self.rank), &serde_json::to_vec(&*tick)?)
    }

    /// Gives a sign of life and looks at those of others; returns why the run ends, if it does.
    fn look(&self, seen: &mut [(u64, u32)]) -> Result<Option<String>> {
        self.sign()?;
        if self.store.peek(&[FAILED.to_string()])?.is_some() {
            return Ok(Some(String::new()));
        }
        // Rank 0 watches all, and all watch rank 0: its store may belong to the launcher.
        let watched = match self.rank {
            0 => 1..self.hosts.len(),
            _ => 0..1,
        };
        let keys: Vec<String> = watched.clone().map(tick_key).collect();
        let Some(values) = self.store.peek(&keys)? else {
            return Ok(None);
        };
        let ticks = values
            .iter()
            .map(|value| serde_json::from_slice::<Tick>(value));
        let ticks = ticks.collect::<Result<Vec<_>, _>>()?;
        self.show_sum(&ticks);
        for (rank, tick) in watched.zip(&ticks) {
            let (last, periods) = &mut seen[rank];
            match *last == tick.number {
                true => *periods += 1,
                false => (*last, *periods) = (tick.number, 0),
            }
            if *periods > PATIENCE {
                return Ok(Some(self.silence_of(rank)));
            }
        }
        Ok(None)
    }

    fn silence_of(&self, rank: usize) -> String {
        let (host, time) = (&self.hosts[rank], PERIOD * PATIENCE);
        let seconds = time.as_secs();
        format!(
            "{host} (rank {rank}): no sign of life for {seconds} s; it was killed or stopped, or lost its network"
        )
    }

    fn show_sum(&self, others: &[Tick]) {
        if let Some((stage, bar)) = &*locked(&self.bar) {
            let done = |tick: &Tick| tick.done.get(*stage).copied().unwrap_or(0);
            let all = done(&locked(&self.tick)) + others.iter().map(done).sum::<u64>();
            bar.set_position(all);
        }
    }

    /// Ends this process because the run cannot go on.
    fn end(&self, line: &str) {
        let _last = locked(&self.ending);
        if self.is_over.load(Ordering::SeqCst) {
            return;
        }
        self.spread(line);
        self.leave();
    }

    /// Ends this process because rank 0 or its host is gone, unless another thread ends it already.
    /// One rank of each other host says it.
    fn lost_store(&self) {
        let last = self.ending.try_lock();
        if matches!(last, Err(TryLockError::WouldBlock)) {
            return;
        }
        if self.is_over.load(Ordering::SeqCst) {
            return;
        }
        let (own, host) = (&self.hosts[self.rank], &self.hosts[0]);
        let others = self.hosts.iter().enumerate().skip(1);
        let first = others.clone().find(|(_, host)| *host == own);
        if self.rank == 0 {
            say("error: the launcher's store cannot be reached; was it ended?");
        } else if first.is_some_and(|(rank, _)| rank == self.rank) {
            say(&format!(
                "error: {host} (rank 0) cannot be reached, so {own} ends; it was killed, or the network is lost"
            ));
        }
        self.leave();
    }

    fn leave(&self) {
        clear_pending();
        signal_hook::low_level::exit(1);
    }

    /// Makes `line` why the run ends, unless there is a reason already, and sees to it that one rank
    /// says that.
    fn spread(&self, line: &str) {
        let own = Failure {
            by: self.rank,
            line: line.to_string(),
        };
        *locked(&self.unsaid) = Some(own.line.clone());
        let claimed = serde_json::to_vec(&own).map_err(anyhow::Error::from);
        let found = claimed.and_then(|value| self.store.claim(FAILED, &value));
        let failure = found
            .ok()
            .and_then(|value| serde_json::from_slice(&value).ok());
        let Failure { by, line } = failure.unwrap_or(own);
        let said = match self.rank {
            0 => false,
            rank => by != rank || self.store.wait(&[SAID.to_string()], SAYING).is_ok(),
        };
        let unsaid = locked(&self.unsaid).take();
        if !said && unsaid.is_some() {
            say(&format!("error: {line}"));
        }
        if self.rank == 0 {
            let _ = self.store.set(SAID, b"yes");
            thread::sleep(3 * PERIOD); // for the others to read it, if this process has the store
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
